"""How fast the Docker sandbox is, beside a bare interpreter, ``docker exec``, ``docker run`` and llm-sandbox.

    python benchmarks/sandbox.py [--json] [--rounds N]

Everything runs ``print(1)`` from one process on one machine, the rivals after every tenth round of ours; figures
are medians. ``sandbox_rivals.py`` says how each rival is run; the figure of one that is not installed
is null.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys

import docker
from sandbox_rivals import open_rivals

from envgym.sandbox.bench import measure_backend
from envgym.sandbox.selection import select_backend
from envgym_sandboxes.docker.image import built_image

_RIVALS = ("docker_exec_p50_ms", "docker_run_p50_ms", "llm_sandbox_p50_ms")


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
    workers = 2 * (os.cpu_count() or 1)
    client = docker.from_env()
    try:
        with open_rivals(client, built_image(client, ("numpy",))) as rivals:
            ours, theirs = await measure_backend(
                lambda: select_backend("docker"), rounds=rounds, workers=workers, rivals=rivals
            )
    finally:
        client.close()
    return {**dataclasses.asdict(ours), **dict.fromkeys(_RIVALS), **theirs}


if __name__ == "__main__":
    sys.exit(main())
