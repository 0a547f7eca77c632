"""Asynchronous beside synchronous training where tools are slow: wall clock, held-out reward, staleness.

    python benchmarks/async_vs_sync.py --seeds 5 --out runs/async_vs_sync [--staleness 2] [--json]

One recipe, ``benchmarks/slow_tools.toml``, with and without ``asynchronous.max_staleness``, for the same steps,
seeds and held-out tasks, one run after another and alternating in order. What is compared is the time of training
without evaluation, and the held-out reward: means over seeds with 95% intervals of Student's t, differences paired
by seed. A run that is in the folder already is not run again, so that the script can be stopped and started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _seeds import interval, train

from envgym.env.chat_env import Reply
from envgym.records import Message, Task
from envgym.runs.folder import RunFolder
from envgym_environments.search_qa import SearchQA

HERE = Path(__file__).parent


class SlowSearch(SearchQA):
    """Its searches take their time in training; evaluation, which is not compared, is spared it."""

    class Config(SearchQA.Config):
        """The settings of ``SearchQA``, and the time of a search."""

        delay: float = 1.0
        """Mean seconds of a search, exponentially distributed."""

    config: Config
    slow = False

    async def start(self, task: Task) -> None:
        """Begin an episode."""
        await super().start(task)
        self.slow = task.split == "train"

    async def respond(self, action: Message) -> Reply:
        """Wait, and answer."""
        if self.slow and action.tool_calls:
            await asyncio.sleep(self.services.rng.expovariate(1 / self.config.delay))
        return await super().respond(action)


def figures(folder: RunFolder) -> dict[str, float]:
    """Return what one run has to show."""
    rows, summary = folder.metrics(), folder.summary()
    if summary is None:
        raise SystemExit(f"{folder.path} has no summary")
    overall = summary["overall"]
    seconds = sum(row["seconds"] for row in rows)
    return {
        "seconds": seconds,
        "seconds a step": seconds / len(rows),
        "trainer waits, share": sum(row["sampling_seconds"] for row in rows) / seconds,
        "overlap, share": sum(row["overlap_seconds"] for row in rows) / seconds,
        "sampled tokens": float(sum(row["sampled_tokens"] for row in rows)),
        "samples": float(sum(row["samples"] for row in rows)),
        "staleness, mean": statistics.fmean(row.get("staleness_mean", 0.0) for row in rows),
        "staleness, most": max(row.get("staleness_max", 0.0) for row in rows),
        "effective share": statistics.fmean(row.get("effective_share", 1.0) for row in rows),
        **{
            f"held-out reward, {decoding}, {when}": found[when]["mean"]
            for decoding, found in overall.items()
            for when in ("before", "after")
        },
    }


def compare(arms: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """Return each figure over seeds by arm, its paired difference, and the ratio of the times."""
    sync, other = arms["synchronous"], arms["asynchronous"]
    table: dict[str, dict[str, Any]] = {}
    for name in sync[0]:
        pairs = [(one[name], two[name]) for one, two in zip(sync, other, strict=True)]
        table[name] = {
            "synchronous": _over([one for one, _ in pairs]),
            "asynchronous": _over([two for _, two in pairs]),
            "difference": _over([two - one for one, two in pairs]),
        }
    ratios = [one["seconds"] / two["seconds"] for one, two in zip(sync, other, strict=True)]
    table["wall clock, synchronous / asynchronous"] = {"ratio": _over(ratios), "median": statistics.median(ratios)}
    return table


def _over(values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = interval(values)
    return {"mean": mean, "low": low, "high": high, "values": list(values)}


def _cell(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def main() -> None:
    """Run what is not there yet, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recipe", default=str(HERE / "slow_tools.toml"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--staleness", type=int, default=2, help="asynchronous.max_staleness")
    parser.add_argument("--set", action="append", default=[], help="a change to the recipe, for both")
    parser.add_argument("--out", type=Path, default=Path("runs/async_vs_sync"))
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    # The recipe names this module's environment, in a process of its own.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    bounds = {"synchronous": 0, "asynchronous": options.staleness}
    arms: dict[str, list[dict[str, float]]] = {arm: [] for arm in bounds}
    for seed in range(options.first, options.first + options.seeds):
        for arm in sorted(bounds, reverse=bool(seed % 2)):
            place = options.out / f"staleness-{bounds[arm]}-{seed}"
            own = [f"seed={seed}", f"asynchronous.max_staleness={bounds[arm]}"]
            train(options.recipe, place, [*options.set, *own], ends_with="summary.json")
            arms[arm].append(figures(RunFolder.existing(place)))
    table = compare(arms)
    if options.json:
        print(json.dumps({"seeds": options.seeds, "staleness": options.staleness, "figures": table}))
        return
    print(f"{options.seeds} seeds; means with 95% intervals over seeds")
    for name, row in table.items():
        print(f"{name:42}" + "".join(f"{_cell(cell):34}" for cell in row.values() if isinstance(cell, dict)))


if __name__ == "__main__":
    main()
