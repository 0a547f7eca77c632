"""Time a sandbox backend through its interface."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from envgym.errors import SandboxError
from envgym.sandbox.interface import Backend, Limits, Status

__all__ = ["PROGRAM", "Rival", "SandboxFigures", "measure_backend", "milliseconds"]

PROGRAM = "print(1)"

Rival = Callable[[], Awaitable[None]]
"""Runs ``PROGRAM`` once by other means, and raises ``SandboxError`` if that fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxFigures:
    """Times in milliseconds, of ``print(1)`` unless stated otherwise."""

    cold_start_ms: float
    """Open the first sandbox of a fresh backend whose image exists, and close it."""
    warm_p50_ms: float
    warm_p99_ms: float
    bare_python_p50_ms: float
    """``python -I -S -c`` as a plain subprocess, alternating with the warm executions."""
    reset_ms: float
    """Close a used sandbox, wiped and verified, and open the next: median."""
    executions_per_s: float
    """Throughput of as many concurrent sandboxes as there are workers."""


async def milliseconds(work: Callable[[], Awaitable[object]]) -> float:
    """Return the duration of one call, in milliseconds."""
    started = time.perf_counter()
    await work()
    return 1e3 * (time.perf_counter() - started)


async def measure_backend(
    make: Callable[[], Backend], *, rounds: int, workers: int, rivals: Mapping[str, Rival] | None = None
) -> tuple[SandboxFigures, dict[str, float]]:
    """Measure one backend that is otherwise idle, interleaved with its rivals.

    Args:
        make: makes a fresh backend.
        rounds: number of timed executions, at least 10; a tenth as many resets and executions of each rival.
        workers: concurrent sandboxes for the throughput.
        rivals: other ways to run ``PROGRAM``, by name.

    Returns:
        the backend's figures, and ``<rival>_p50_ms`` for each rival.

    Raises:
        SandboxError: an execution of ``print(1)`` did not print 1.
    """
    backend = make()
    try:
        cold = await milliseconds(lambda: _open_and_close(backend))
        warm, bare, theirs = await _executions(backend, rounds, rivals or {})
        resets = [await milliseconds(lambda: _open_and_close(backend)) for _ in range(max(1, rounds // 10))]
        rate = await _throughput(backend, rounds, workers)
    finally:
        await backend.close()
    ours = SandboxFigures(
        cold_start_ms=cold,
        warm_p50_ms=statistics.median(warm),
        warm_p99_ms=sorted(warm)[int(0.99 * (len(warm) - 1))],
        bare_python_p50_ms=statistics.median(bare),
        reset_ms=statistics.median(resets),
        executions_per_s=rate,
    )
    return ours, {f"{name}_p50_ms": statistics.median(times) for name, times in theirs.items()}


async def _open_and_close(backend: Backend) -> None:
    async with await backend.open(Limits()):
        pass


async def _executions(
    backend: Backend, rounds: int, rivals: Mapping[str, Rival]
) -> tuple[list[float], list[float], dict[str, list[float]]]:
    warm, bare = [], []
    theirs: dict[str, list[float]] = {name: [] for name in rivals}
    async with await backend.open(Limits()) as sandbox:

        async def run() -> None:
            result = await sandbox.run_python(PROGRAM)
            if result.status is not Status.OK or result.stdout != b"1\n":
                raise SandboxError(f"{PROGRAM} ended {result.status}: {result.error_text[:200]}")

        await run()
        for i in range(rounds):
            warm.append(await milliseconds(run))
            bare.append(await milliseconds(_bare_python))
            for name, rival in rivals.items() if i % 10 == 9 else ():
                theirs[name].append(await milliseconds(rival))
    return warm, bare, theirs


async def _bare_python() -> None:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: ASYNC221 - as bare as it gets


async def _throughput(backend: Backend, rounds: int, workers: int) -> float:
    sandboxes = [await backend.open(Limits()) for _ in range(workers)]
    try:
        for sandbox in sandboxes:
            await sandbox.run_python(PROGRAM)

        async def work(number: int) -> None:
            for _ in range(rounds // workers):
                await sandboxes[number].run_python(PROGRAM)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(workers):
                tasks.create_task(work(number))
        return rounds // workers * workers / (time.perf_counter() - started)
    finally:
        for sandbox in sandboxes:
            await sandbox.close()
