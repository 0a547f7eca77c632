"""How fast the Docker sandbox is, beside a bare interpreter, ``docker exec``, ``docker run`` and llm-sandbox.

    python benchmarks/sandbox.py [--json] [--rounds N]

Everything runs ``print(1)`` from one process on one machine, the rivals after every tenth round of ours; figures
are medians. The rivals use the image that ours uses, without its limits, which favours them; ``docker exec`` and
``docker run`` are the command-line client. llm-sandbox (``pip install llm-sandbox[docker]``) runs from its own
pre-warmed pool, its environment set up and a session open, so that only ``session.run`` is timed; without the
package its figure is null.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import docker

from envgym.sandbox import select_backend
from envgym.sandbox_bench import PROGRAM, measure_backend
from envgym_sandboxes.docker.image import Image, built_image

Run = Callable[[], None]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    arguments.add_argument("--rounds", type=int, default=300, help="timed executions of ours")
    options = arguments.parse_args()
    figures = asyncio.run(measure(options.rounds))
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<22} {value:>10.2f}" if value is not None else f"{name:<22} {'not there':>10}")


async def measure(rounds: int) -> dict[str, float | None]:
    """Every figure, in milliseconds or executions a second."""
    client = docker.from_env()
    image = built_image(client, ("numpy",))
    with ExitStack() as stack:
        rivals: dict[str, Run] = {}
        for name, rival in _RIVALS.items():
            if (run := stack.enter_context(rival(client, image))) is not None:
                rivals[name] = run
        times: dict[str, list[float]] = {name: [] for name in rivals}

        async def beside() -> None:
            for name, run in rivals.items():
                started = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - started))

        workers = 2 * (os.cpu_count() or 1)
        ours = await measure_backend(
            lambda: select_backend("docker"), rounds=rounds, workers=workers, beside=beside
        )
    client.close()
    theirs = {name: statistics.median(times[name]) if name in times else None for name in _RIVALS}
    return {**ours.as_dict(), **theirs}


@contextmanager
def _docker_exec(client: docker.DockerClient, image: Image) -> Iterator[Run]:
    sleeper = [image.python, "-c", "import time; time.sleep(3600)"]
    container: Any = client.containers.run(image.reference, sleeper, detach=True, network_mode="none", init=True)
    command = ["docker", "exec", container.id, image.python, "-I", "-S", "-c", PROGRAM]
    try:
        yield lambda: _print_one(command)
    finally:
        container.remove(force=True)


@contextmanager
def _docker_run(client: docker.DockerClient, image: Image) -> Iterator[Run]:
    command = ["docker", "run", "--rm", "--network", "none", image.reference]
    command += [image.python, "-I", "-S", "-c", PROGRAM]
    yield lambda: _print_one(command)


@contextmanager
def _llm_sandbox(client: docker.DockerClient, image: Image) -> Iterator[Run | None]:
    try:
        from llm_sandbox import SandboxBackend, SandboxSession
        from llm_sandbox.pool import PoolConfig, create_pool_manager
    except ImportError:
        yield None
        return
    own = _with_tools(client, image)
    pool = create_pool_manager(
        backend=SandboxBackend.DOCKER,
        config=PoolConfig(max_pool_size=2, min_pool_size=2, enable_prewarming=True),
        lang="python",
        image=own,
        skip_environment_setup=True,
        runtime_configs={"network_mode": "none"},
    )
    try:
        with pool, SandboxSession(lang="python", pool=pool) as session:

            def run() -> None:
                done = session.run(PROGRAM)
                if done.exit_code != 0 or done.stdout.strip() != "1":
                    raise SystemExit(f"llm-sandbox failed: {done.exit_code} {done.stdout} {done.stderr}")

            yield run
    finally:
        client.images.remove(own, force=True)


def _with_tools(client: docker.DockerClient, image: Image) -> str:
    """The image and what llm-sandbox expects of one: the programs that it calls, and ``python`` on the path."""
    files = {tool: f"/bin/{tool}" for tool in ("mkdir", "tail", "sleep", "chmod", "rm")}
    paths = [shutil.which(tool) or "" for tool in files]
    named = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=True).stdout
    libraries = sorted(set(re.findall(r"(/\S+) \(0x", named)))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        for source, inside in [*zip(paths, files.values(), strict=True), *((path, path) for path in libraries)]:
            tar.add(os.path.realpath(source), inside)
        for name in ("usr/bin/python", "sandbox/.sandbox-venv/bin/python"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, image.python
            tar.addfile(link)
    container: Any = client.containers.create(image.reference, [image.python])
    try:
        container.put_archive("/", archive.getvalue())
        own: Any = container.commit("envgym-bench", "llm-sandbox")
        return str(own.tags[0])
    finally:
        container.remove(force=True)


def _print_one(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.stdout != b"1\n":
        raise SystemExit(f"{' '.join(command[:2])} failed: {done.stderr.decode(errors='replace')}")


_RIVALS: dict[str, Callable[[docker.DockerClient, Image], AbstractContextManager[Run | None]]] = {
    "docker_exec_p50_ms": _docker_exec,
    "docker_run_p50_ms": _docker_run,
    "llm_sandbox_p50_ms": _llm_sandbox,
}

if __name__ == "__main__":
    sys.exit(main())
