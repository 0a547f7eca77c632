"""How much longer ``import envgym`` takes than ``import gymnasium``. Run: python benchmarks/import_time.py

Each import is timed inside a fresh process; the two alternate, so that a busy machine slows both alike. Exit
code 1: the ratio of the medians is above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

_PROGRAM = "import time; started = time.perf_counter(); import {}; print(time.perf_counter() - started)"
_LIMIT = 1.5


def seconds(module: str) -> float:
    """Import ``module`` in a fresh process and return how long that took there."""
    command = [sys.executable, "-c", _PROGRAM.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print both medians in milliseconds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="imports of each")
    rounds = parser.parse_args().rounds
    for module in ("gymnasium", "envgym"):
        seconds(module)  # compiles what is not compiled yet
    pairs = [(seconds("gymnasium"), seconds("envgym")) for _ in range(rounds)]
    base, ours = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"gymnasium {base:.1f} ms  envgym {ours:.1f} ms  ratio {ours / base:.2f} (limit {_LIMIT}, n {rounds})")
    if ours > _LIMIT * base:
        sys.exit(1)


if __name__ == "__main__":
    main()
