"""Equal runs, bit for bit: repeated, and killed again and again, one time inside a checkpoint.

    python benchmarks/reproducible.py RECIPE [--set KEY=VALUE …] [--kills 10] [--repeats 3] [--json]

Runs the recipe a few times, alternating with ``reproducible=false`` for what it costs; then with ``kill -9`` at
random instants, one of them inside the write of a checkpoint, and ``--resume`` after each, in as many runs as it
takes. Compares every byte of weights, optimizer, evaluations and trajectories, and every metric but the times.
Exits with 1 if anything differs, or if no kill hit a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
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
TIMES = ("seconds", "tokens_per_second", "tools/")
"""Names in metrics and in the state of a checkpoint that hold how long something took, or what was still known."""
INSIDE = "inside a checkpoint"


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


def killed_runs(recipe: list[str], place: Path, kills: int, seconds: float) -> tuple[list[Path], list[str]]:
    """Run to the end through kills, in further folders until there were ``kills`` of them.

    Returns:
        the folders of the runs, all finished, and where each kill hit. The first kills wait for a checkpoint until
        one hit it; the others come at random instants.
    """
    rng = random.Random(0)
    folders: list[Path] = []
    hits: list[str] = []
    while len(hits) < kills:
        folder = place / f"killed-{len(folders)}"
        folders.append(folder)
        while not (folder / "summary.json").exists():
            resumed = (folder / "recipe.toml").exists()
            process = start("--resume", str(folder)) if resumed else start(*recipe, "--out", str(folder))
            if len(hits) == kills:
                if code := process.wait():
                    sys.exit(f"{folder.name}, which was killed and resumed, ended with {code}")
                break
            began = time.time_ns()
            if any(INSIDE in hit for hit in hits):
                _sleep(rng.uniform(0, seconds), process)
            else:
                _wait_for_draft(folder, process, began)
                _sleep(rng.uniform(0, 0.02), process)
            if (code := process.poll()) is None:
                process.kill()
                process.wait()
                hits.append(_place_of_hit(folder, began))
            elif code:
                sys.exit(f"{folder.name} ended with {code} before it was killed")
            else:
                # Over before its instant came: runs have become quicker, or little of this one was left.
                seconds *= 0.7
    return folders, hits


def _place_of_hit(folder: Path, began: int) -> str:
    done = (folder / "metrics.jsonl").read_text().count("\n") if (folder / "metrics.jsonl").exists() else 0
    # Looked at after the kill: a draft that is there now was being written, unless an earlier kill left it.
    return f"{folder.name}, step {done}{f', {INSIDE}' if _drafts(folder, began) else ''}"


def _drafts(folder: Path, since: int) -> list[Path]:
    """Return the checkpoints that were begun after a time, in nanoseconds, and have no name yet."""
    found = []
    for path in (folder / "checkpoints").glob("*.draft"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns >= since:
                found.append(path)
    return found


def _wait_for_draft(folder: Path, process: subprocess.Popen[bytes], since: int) -> None:
    while process.poll() is None and not _drafts(folder, since):
        time.sleep(0.0005)


def _sleep(seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Sleep until ``seconds`` are over or the process has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def differences(one: Path, two: Path) -> list[str]:
    """Return the names of files and metrics that differ."""

    def files(folder: Path) -> dict[str, Any]:
        paths = [p for part in PARTS for p in (folder / part).rglob("*") if p.is_file()]
        return {str(p.relative_to(folder)): _content(p) for p in paths}

    first, second = files(one), files(two)
    found = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    rows = [[_timeless(json.loads(line)) for line in (f / "metrics.jsonl").open()] for f in (one, two)]
    return sorted(found) + ([] if rows[0] == rows[1] else ["metrics.jsonl"])


def _content(path: Path) -> Any:
    """Return the bytes of a file; of what a checkpoint says of itself, all but times and their checksum."""
    match path.name:
        case "state.json":
            return _timeless(json.loads(path.read_text()))
        case "manifest.json":
            sums = json.loads(path.read_text())["files"]
            return {name: known for name, known in sums.items() if name != "state.json"}
        case _:
            return path.read_bytes()


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not any(t in name for t in TIMES)}


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], help="a change to the recipe, as of envgym train")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="runs with and without the setting, to be timed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    recipe = [options.recipe, *(word for change in options.set for word in ("--set", change))]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        whole = [place / f"whole-{i}" for i in range(options.repeats)]
        ordered, free = [], []
        for i, folder in enumerate(whole):
            ordered.append(run(*recipe, "--out", str(folder)))
            free.append(run(*recipe, "--set", "reproducible=false", "--out", str(place / f"free-{i}")))
        killed, hits = killed_runs(recipe, place, options.kills, statistics.median(ordered))
        result = {
            "repeated": {folder.name: differences(whole[0], folder) for folder in whole[1:]},
            "killed": {folder.name: differences(whole[0], folder) for folder in killed},
            "kills": hits,
            "kills_inside_a_checkpoint": sum(INSIDE in hit for hit in hits),
            "seconds_reproducible": ordered,
            "seconds_free": free,
            "cost_ratio": statistics.median(ordered) / statistics.median(free),
        }
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    equal = not any([*result["repeated"].values(), *result["killed"].values()])
    sys.exit(not (equal and result["kills_inside_a_checkpoint"]))


if __name__ == "__main__":
    main()
