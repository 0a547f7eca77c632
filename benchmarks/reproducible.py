"""Equal runs, bit for bit: twice the same, and killed again and again, one time inside a checkpoint.

    python benchmarks/reproducible.py RECIPE [--set KEY=VALUE …] [--kills 10] [--json]

Runs the recipe twice, alternating with ``reproducible=false`` for what it costs, and once more with ``kill -9`` at
random instants and ``--resume`` after each. Compares every byte of weights, optimizer, evaluations and
trajectories, and every metric but the times. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PARTS = ("checkpoints", "evaluations", "trajectories")
CLOCKED = ("state.json", "manifest.json")
"""Files of a checkpoint that hold the time that training took, or its checksum."""
TIMES = ("seconds", "tokens_per_second")


def command(*words: str) -> list[str]:
    """Return the command line of ``envgym train``."""
    return [sys.executable, "-c", "from envgym.cli import main; main()", "train", *words]


def start(*words: str) -> subprocess.Popen[bytes]:
    """Start ``envgym train`` quietly."""
    return subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(*words: str) -> float:
    """Run ``envgym train`` to its end and return the seconds that it took."""
    began = time.monotonic()
    if code := start(*words).wait():
        sys.exit(f"envgym train {' '.join(words)} ended with {code}")
    return time.monotonic() - began


def run_with_kills(recipe: list[str], folder: Path, kills: int, seconds: float) -> list[str]:
    """Run to the end through kills, and return where each of them hit."""
    rng = random.Random(0)
    hits: list[str] = []
    words = [*recipe, "--out", str(folder)]
    while True:
        process = start(*words)
        if len(hits) == kills:
            if code := process.wait():
                sys.exit(f"the run that was killed ended with {code}")
            return hits
        if not any("checkpoint" in hit for hit in hits):
            _wait_for_draft(folder, process)
        else:
            time.sleep(rng.uniform(0.1, 1.0) * seconds / kills + 3)
        writing = bool(list((folder / "checkpoints").glob("*.draft")))
        process.kill()
        process.wait()
        if (folder / "summary.json").exists():
            return hits
        done = (folder / "metrics.jsonl").read_text().count("\n") if (folder / "metrics.jsonl").exists() else 0
        hits.append(f"step {done}{', inside a checkpoint' if writing else ''}")
        if (folder / "recipe.toml").exists():
            words = ["--resume", str(folder)]


def _wait_for_draft(folder: Path, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not list((folder / "checkpoints").glob("*.draft")):
        time.sleep(0.0005)


def differences(one: Path, two: Path) -> list[str]:
    """Return the names of files and metrics that differ."""

    def files(folder: Path) -> dict[str, bytes]:
        paths = [p for part in PARTS for p in (folder / part).rglob("*") if p.is_file() and p.name not in CLOCKED]
        return {str(p.relative_to(folder)): p.read_bytes() for p in paths}

    first, second = files(one), files(two)
    found = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    rows = [[_timeless(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (one, two)]
    return sorted(found) + ([] if rows[0] == rows[1] else ["metrics.jsonl"])


def _timeless(line: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(line).items() if not any(t in name for t in TIMES)}


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], help="a change to the recipe, as of envgym train")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    recipe = [options.recipe, *(word for change in options.set for word in ("--set", change))]
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in ("first", "second", "killed", "free")}
        ordered, free = [], []
        for name in ("first", "second"):
            ordered.append(run(*recipe, "--out", str(folders[name])))
            free.append(run(*recipe, "--set", "reproducible=false", "--out", str(folders["free"]) + name))
        hits = run_with_kills(recipe, folders["killed"], options.kills, ordered[0])
        result = {
            "twice": differences(folders["first"], folders["second"]),
            "killed": differences(folders["first"], folders["killed"]),
            "kills": hits,
            "seconds_reproducible": ordered,
            "seconds_free": free,
            "cost_ratio": statistics.median(ordered) / statistics.median(free),
        }
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    sys.exit(bool(result["twice"] or result["killed"]))


if __name__ == "__main__":
    main()
