"""The demonstration against its rivals, over several seeds.

    python benchmarks/quickstart_claims.py --seeds 5 --jobs 2 --out runs/claims [--recipe …] [--json]

Runs the recipe with every control, once for each seed, then puts the seeds together: means over seeds with 95%
intervals of Student's t. A run that is in the folder already is not run again, and one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _seeds import over_seeds, train


def run(recipe: str, seed: int, out: Path, controls: str) -> dict[str, Any]:
    """Run one seed with its controls, or go on with it, and return ``controls.json``."""
    settings, options = [f"seed={seed}", "threads=1"], ["--controls", controls]
    train(recipe, out, settings, ends_with="controls.json", options=options)
    record: dict[str, Any] = json.loads((out / "controls.json").read_text())
    return record


def claims(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the seeds together."""
    result: dict[str, Any] = {"seeds": len(records)}
    for decoding in records[0]["verdict"]["decodings"]:
        rows = [record["rows"] for record in records]
        gains = {
            name: [row[name]["overall"][decoding]["gain"]["mean"] for row in rows]
            for name in rows[0]
            if all(name in row for row in rows)
        }
        controls = {name: statistics.fmean(values) for name, values in gains.items() if name != "trained"}
        best = max(controls, key=lambda name: controls[name])
        trained = [row["trained"]["overall"][decoding] for row in rows]
        starts = [_best_of_start(record) for record in records]
        over = [t["after"]["mean"] - start for t, start in zip(trained, starts, strict=True)]
        result[decoding] = {
            "start": over_seeds([t["before"]["mean"] for t in trained]),
            "trained": over_seeds([t["after"]["mean"] for t in trained]),
            "gains": {name: over_seeds(values) for name, values in gains.items()},
            "best_control": best,
            "best_control_share": max(0.0, controls[best]) / statistics.fmean(gains["trained"]),
            "best_of_start": over_seeds(starts),
            "trained_over_best_of_start": over_seeds(over),
            "environments": {
                label: {
                    "gain": over_seeds(
                        [row["trained"]["environments"][label][decoding]["gain"]["mean"] for row in rows]
                    ),
                    "lowest_bound": min(
                        row["trained"]["environments"][label][decoding]["gain"]["low"] for row in rows
                    ),
                }
                for label in rows[0]["trained"]["environments"]
            },
        }
    return result


def _best_of_start(record: Mapping[str, Any]) -> float:
    best = record["best_of_start"]
    mean: float = best["temperatures"][best["best"]]["overall"]["mean"]
    return mean


def main() -> None:
    """Run the seeds, two at a time by default, and print what they say together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recipe", default="recipes/quickstart.toml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each on one thread")
    parser.add_argument("--controls", default="entropy,length,random,format,wrong_label")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        places = [options.out / f"seed-{seed}" for seed in range(options.seeds)]
        jobs = [pool.submit(run, options.recipe, s, p, options.controls) for s, p in enumerate(places)]
        records = [job.result() for job in jobs]
    print(json.dumps(claims(records), indent=None if options.json else 2))


if __name__ == "__main__":
    main()
