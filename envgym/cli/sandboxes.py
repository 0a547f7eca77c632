"""``envgym sandbox``: what this machine can isolate, and how fast."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from envgym.cli.options import JsonFlag, Settings
from envgym.config import parse_overrides
from envgym.errors import EnvgymError, SandboxError, UserError
from envgym.registry import sandboxes
from envgym.sandbox import Backend, Limits, select_backend
from envgym.sandbox_bench import measure_backend

__all__ = ["add_to"]

Name = Annotated[str, typer.Argument(help="a backend, e.g. docker, bubblewrap; auto is the best isolated one")]

_PROBE = """
import json, os, resource

def first(*names):
    for name in names:
        try:
            with open("/sys/fs/cgroup/" + name) as file:
                return file.read().strip()
        except OSError:
            pass
    return "not told"

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
folders = [os.getcwd(), "/tmp", "/dev/shm"]
print(json.dumps({
    "user": f"uid {os.getuid()}, gid {os.getgid()}",
    "capabilities": status["CapEff"].strip(),
    "no new privileges": status["NoNewPrivs"].strip(),
    "seccomp mode": status["Seccomp"].strip(),
    "root": "read-only" if os.statvfs("/").f_flag & os.ST_RDONLY else "WRITABLE",
    "network": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "memory": first("memory.max", "memory/memory.limit_in_bytes"),
    "processes": first("pids.max", "pids/pids.max"),
    "cpu time": first("cpu.max", "cpu/cpu.cfs_quota_us"),
    "open files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "writable folders": {f: os.statvfs(f).f_blocks * os.statvfs(f).f_frsize for f in folders if os.path.isdir(f)},
}))
"""


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(help="What this machine can isolate, and how fast.", no_args_is_help=True)
    group.command("doctor")(doctor_command)
    group.command("build")(build_command)
    group.command("clean")(clean_command)
    group.command("bench")(bench_command)
    app.add_typer(group, name="sandbox")


def doctor_command(as_json: JsonFlag = False) -> None:
    """Say for every backend whether it works here, what holds inside, and what to do where it does not.

    The facts are read by a program inside a sandbox. Exit code 1: no isolated backend works.
    """
    rows = {name: asyncio.run(_examine(name)) for name in sandboxes.plugins()}
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for name, row in rows.items():
            print("\n".join(_lines(name, row)))
    if not any(row["works"] and row["isolated"] for row in rows.values()):
        sys.exit(1)


def build_command(name: Name = "docker", set_: Settings = None) -> None:
    """Make what the sandboxes of a backend need: for docker, the image of this machine's interpreter.

    It is made on first use as well. --set packages='["numpy", "pandas"]' says which of the packages installed
    here programs may import.
    """
    print(asyncio.run(_prepared(name, parse_overrides(set_ or []))) or f"{name} needs nothing")


def clean_command() -> None:
    """Remove the sandboxes that dead processes left behind; those of living ones stay."""
    for name in sandboxes.plugins():
        kind: type[Backend] = sandboxes.load(name)
        if kind.unavailable() is None:
            print(f"{name}: {kind.clean()} removed")


def bench_command(
    name: Name = "auto",
    rounds: Annotated[int, typer.Option(help="timed executions", min=10)] = 200,
    workers: Annotated[int, typer.Option(help="sandboxes at once for the throughput", min=1)] = 4,
    set_: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure executions of print(1): latency, throughput, cold start and reset, beside a bare subprocess."""
    settings = parse_overrides(set_ or [])
    figures = asyncio.run(
        measure_backend(lambda: select_backend(name, settings), rounds=rounds, workers=workers)
    ).as_dict()
    if as_json:
        print(json.dumps(figures))
        return
    for figure, value in figures.items():
        print(f"{figure:<22} {value:10.2f}")


async def _prepared(name: str, settings: dict[str, Any]) -> str:
    backend = select_backend(name, settings)
    try:
        return await backend.prepare()
    finally:
        await backend.close()


async def _examine(name: str) -> dict[str, Any]:
    """Whether it works, and what a program finds inside or why it does not."""
    kind: type[Backend] = sandboxes.load(name)
    row: dict[str, Any] = {"isolated": kind.isolated, "works": False}
    try:
        backend = select_backend(name)
    except UserError as error:
        return {**row, "reason": str(error).partition(f"{name}: ")[2] or str(error)}
    try:
        async with await backend.open(Limits()) as sandbox:
            result = await sandbox.run_python(_PROBE)
            if result.exit_code != 0:
                raise SandboxError(f"a program ended {result.status}: {result.error_text.strip()[-300:]}")
            return {**row, "works": True, "inside": json.loads(result.stdout)}
    except EnvgymError as error:
        return {**row, "reason": str(error)}
    finally:
        await backend.close()


def _lines(name: str, row: dict[str, Any]) -> Iterator[str]:
    kind = "isolated" if row["isolated"] else "NOT isolated, only by name"
    if not row["works"]:
        yield f"{name}: does not work here ({kind})\n  {row['reason']}"
        return
    yield f"{name}: works ({kind})"
    for fact, value in row["inside"].items():
        yield f"  {fact:<18} {value}"
