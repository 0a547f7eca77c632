"""``envgym sandbox``: check and time the isolation that this machine offers."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from envgym.cli.interruption import run
from envgym.cli.options import JsonFlag, Settings
from envgym.errors import EnvgymError, SandboxError, UserError

if TYPE_CHECKING:
    from envgym.sandbox.interface import Backend

__all__ = ["add_to"]

Name = Annotated[str, typer.Argument(help="a backend, e.g. docker, bubblewrap; auto is the best isolated one")]

_FOLDERS = (".", "/tmp", "/dev/shm")


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(help="Check and time the isolation that this machine offers.", no_args_is_help=True)
    group.command("doctor")(doctor_command)
    group.command("build")(build_command)
    group.command("clean")(clean_command)
    group.command("bench")(bench_command)
    app.add_typer(group, name="sandbox")


def doctor_command(as_json: JsonFlag = False) -> None:
    """Report for every backend if it works here, with the limits in effect inside or the reason and the remedy.

    The facts are read by a program inside a sandbox. Exit code 1: no isolated backend works.
    """
    from envgym.sandbox.selection import sandboxes

    rows = {name: run(_examine(name)) for name in sandboxes.plugins()}
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for name, row in rows.items():
            print("\n".join(_lines(name, row)))
    if not any(row["works"] and row["isolated"] for row in rows.values()):
        sys.exit(1)


def build_command(name: Name = "docker", set_: Settings = None) -> None:
    """Prepare the shared parts of a backend's sandboxes: for docker, the image of this machine's interpreter.

    They are also made on first use. --set packages='["numpy", "pandas"]' selects the installed packages that
    programs may import.
    """
    from envgym.config import parse_settings

    print(run(_prepared(name, parse_settings(set_ or []))) or f"{name} needs nothing")


def clean_command() -> None:
    """Remove the sandboxes that dead processes left behind; running processes keep theirs."""
    from envgym.sandbox.selection import sandboxes

    for name in sandboxes.plugins():
        try:
            kind: type[Backend] = sandboxes.load(name)
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        if kind.unavailable() is None:
            print(f"{name}: {kind.clean()} removed")


def bench_command(
    name: Name = "auto",
    rounds: Annotated[int, typer.Option(help="timed executions", min=10)] = 200,
    workers: Annotated[int, typer.Option(help="sandboxes at once for the throughput", min=1)] = 4,
    set_: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure executions of print(1): latency, throughput, cold start and reset.

    A bare subprocess is timed in between.
    """
    from envgym.config import parse_settings
    from envgym.sandbox.bench import measure_backend
    from envgym.sandbox.selection import select_backend

    settings = parse_settings(set_ or [])
    ours, _ = run(measure_backend(lambda: select_backend(name, settings), rounds=rounds, workers=workers))
    figures = dataclasses.asdict(ours)
    if as_json:
        print(json.dumps(figures))
        return
    for figure, value in figures.items():
        print(f"{figure:<22} {value:10.2f}")


async def _prepared(name: str, settings: dict[str, Any]) -> str:
    from envgym.sandbox.selection import select_backend

    backend = select_backend(name, settings)
    try:
        return await backend.prepare()
    finally:
        await backend.close()


async def _examine(name: str) -> dict[str, Any]:
    """Return a row that tells if the backend works, with the facts read inside or the reason why not."""
    from envgym.sandbox.selection import sandboxes

    try:
        kind: type[Backend] = sandboxes.load(name)
    except UserError as error:
        return {"isolated": None, "works": False, "reason": str(error)}
    row: dict[str, Any] = {"isolated": kind.isolated, "works": False}
    if (reason := kind.unavailable()) is not None:
        return {**row, "reason": reason}
    try:
        return {**row, "works": True, "inside": _in_words(await _probed(name))}
    except EnvgymError as error:
        return {**row, "reason": str(error)}


async def _probed(name: str) -> dict[str, Any]:
    from envgym.sandbox.interface import Limits
    from envgym.sandbox.probe import probe
    from envgym.sandbox.selection import select_backend

    backend = select_backend(name)
    try:
        async with await backend.open(Limits()) as sandbox:
            result = await sandbox.run_python(probe(_FOLDERS))
            if result.exit_code != 0:
                raise SandboxError(f"a program ended {result.status}: {result.error_text.strip()[-300:]}")
            facts: dict[str, Any] = json.loads(result.stdout)
            return facts
    finally:
        await backend.close()


def _in_words(facts: dict[str, Any]) -> dict[str, Any]:
    groups = {name: " ".join(facts[name] or ["not told"]) for name in ("memory", "processes", "cpus")}
    return {
        "user": f"uid {facts['uid'][0]}, gid {facts['gid'][0]}",
        "capabilities": f"{facts['capabilities']:016x}",
        "no new privileges": facts["no_new_privs"],
        "seccomp mode": facts["seccomp"],
        "root": "WRITABLE" if facts["root_writable"] else "read-only",
        "network": facts["interfaces"],
        "memory": groups["memory"],
        "processes": groups["processes"],
        "cpu time": groups["cpus"],
        "open files": facts["files"][0],
        "writable folders": {folder: size for folder, size in facts["folders"].items() if size is not None},
    }


def _lines(name: str, row: dict[str, Any]) -> Iterator[str]:
    if row["isolated"] is None:
        yield f"{name}: cannot be loaded\n  {row['reason']}"
        return
    kind = "isolated" if row["isolated"] else "NOT isolated, only by name"
    if not row["works"]:
        yield f"{name}: does not work here ({kind})\n  {row['reason']}"
        return
    yield f"{name}: works ({kind})"
    for fact, value in row["inside"].items():
        yield f"  {fact:<18} {value}"
