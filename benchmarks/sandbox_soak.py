"""Whether the sandbox stays as fast and as small as it began: many episodes, many at once.

    python benchmarks/sandbox_soak.py [--json] [--sandbox docker] [--episodes 1000] [--at-once 64]

Each episode opens a sandbox, runs five programs and closes it. Some programs misbehave: they flood, exit non-zero
or start children that outlive them. ``failures`` counts whatever is not what the program deserves. Costs are means
over the first and the last tenth of the executions, in milliseconds; memory is this process's, resident, in MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from pathlib import Path

from envgym.errors import SandboxError
from envgym.sandbox.interface import Backend, Limits, Status
from envgym.sandbox.selection import select_backend

_PROGRAMS = (
    ("print(1)", Status.OK),
    ("print(sum(range(10000)))", Status.OK),
    ("raise SystemExit(3)", Status.NONZERO),
    ("import os\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        pass\nprint(1)", Status.OK),
    ("print('x' * 3_000_000)", Status.OUTPUT_LIMIT),
)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sandbox", default="docker", help="which backend")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    figures = asyncio.run(soak(options.sandbox, options.episodes, options.at_once))
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<24} {value:>10.2f}")


async def soak(name: str, episodes: int, at_once: int) -> dict[str, float]:
    """Run the episodes; every figure by its name."""
    backend = select_backend(name)
    places = asyncio.Semaphore(at_once)
    costs: list[float] = []
    memory: list[float] = []
    failures = 0

    async def episode(number: int) -> None:
        nonlocal failures
        async with places:
            failures += await _episode(backend, number, costs)
            memory.append(_resident())

    try:
        await _episode(backend, 0, [])
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(episodes):
                tasks.create_task(episode(number))
        seconds = time.perf_counter() - started
    finally:
        await backend.close()
    tenth = max(1, len(costs) // 10)
    first, last = statistics.fmean(costs[:tenth]), statistics.fmean(costs[-tenth:])
    return {
        "episodes": episodes,
        "executions": len(costs),
        "failures": failures,
        "executions_per_s": len(costs) / seconds,
        "first_tenth_ms": first,
        "last_tenth_ms": last,
        "last_to_first": last / first,
        "memory_first_mib": statistics.fmean(memory[: max(1, len(memory) // 10)]),
        "memory_last_mib": statistics.fmean(memory[-max(1, len(memory) // 10) :]),
    }


async def _episode(backend: Backend, number: int, costs: list[float]) -> int:
    """Play one; how many executions did not end as the program deserves."""
    wrong = 0
    try:
        async with await backend.open(Limits()) as sandbox:
            for i in range(5):
                program, deserved = _PROGRAMS[(number + i) % len(_PROGRAMS)]
                started = time.perf_counter()
                result = await sandbox.run_python(program)
                costs.append(1e3 * (time.perf_counter() - started))
                wrong += result.status is not deserved
    except SandboxError as error:
        print(f"episode {number}: {error}", flush=True)
        wrong += 1
    return wrong


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
