"""DAPO and GRPO at equal sampled tokens, over several seeds.

    python benchmarks/dapo_grpo.py --seeds 5 --jobs 2 --out runs/dapo_grpo [--tokens 0] [--json]

DAPO as the recipe has it; GRPO at its defaults in the same recipe: same learning rate, groups, start model and
tasks. Both sample until the same number of tokens, that of the recipe's steps under DAPO with seed 0 unless
``--tokens`` says another, and are measured on the held-out tasks on the way. What is reported is at that number of
tokens, interpolated between the two measurements around it, for each objective and for the differences, paired by
seed: means with 95% intervals of Student's t. A seed whose run did not reach a target is counted, and has no part
in the mean. A run that is in the folder already is not run again, and one that was stopped goes on; another budget
needs another folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _seeds import interval, train

from envgym.runs.folder import RunFolder
from envgym_trainers.stages.measurement import overall, read_scores

ARMS: dict[str, list[str]] = {"dapo": [], "grpo": ['objective={ name = "grpo" }']}
LAST = 5
"""Steps over which entropy is averaged at the end."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Held-out reward of one run on the way, from before training to its end."""

    steps: np.ndarray  # [M]
    tokens: np.ndarray  # [M], sampled in training until then
    greedy: np.ndarray  # [M]
    sampled: np.ndarray  # [M]

    def reached(self, target: float, along: np.ndarray, until: float) -> float | None:
        """Return where along steps or tokens the greedy reward first was ``target``, None if not by ``until``."""
        above = np.flatnonzero(self.greedy >= target)
        if not len(above):
            return None
        i = int(above[0])
        if i == 0:
            return 0.0
        share = (target - self.greedy[i - 1]) / (self.greedy[i] - self.greedy[i - 1])
        tokens = self.tokens[i - 1] + share * (self.tokens[i] - self.tokens[i - 1])
        return float(along[i - 1] + share * (along[i] - along[i - 1])) if tokens <= until else None


def curve(folder: RunFolder) -> Curve:
    """Read the curve of a finished run."""
    rows = folder.metrics()
    tokens = np.concatenate([[0.0], np.cumsum([row["sampled_tokens"] for row in rows])])
    found = {0: "before", len(rows): "after"}
    for path in folder.evaluation("after").parent.glob("step-*.json"):
        found.setdefault(int(path.stem.removeprefix("step-")), path.stem)
    steps = sorted(found)
    scores = [read_scores(folder.evaluation(found[step])) for step in steps]
    rewards = {d: np.array([overall(one[d]) for one in scores]) for d in ("greedy", "sampled")}
    return Curve(steps=np.array(steps, dtype=float), tokens=tokens[steps], **rewards)


def entropy(folder: RunFolder, steps: Sequence[int]) -> float:
    """Return the mean of -log p over sampled tokens, every environment counting the same, in nats.

    An unbiased estimate of the policy's entropy at temperature 1. The trainer's own metric is over the groups that
    it trains on, and dynamic sampling chooses them.
    """
    found: dict[str, list[float]] = {}
    for step in steps:
        for trajectory in folder.trajectories(step):
            for turn in trajectory.turns:
                found.setdefault(trajectory.env, []).extend(turn.tokens.logprobs if turn.tokens else ())
    return -float(np.mean([np.mean(logprobs) for logprobs in found.values() if logprobs]))


def figures(folder: RunFolder, budget: float, targets: Sequence[float]) -> dict[str, float | None]:
    """Return what one run has to show at the budget of tokens."""
    rows = folder.metrics()
    spent = np.cumsum([row["sampled_tokens"] for row in rows])
    # The step that passes the budget belongs to it; a run may also end before.
    rows = rows[: int(np.searchsorted(spent, budget)) + 1]
    found = curve(folder)
    reached = {
        f"{name} to {target:g} greedily": found.reached(target, along, budget)
        for target in targets
        for name, along in (("tokens", found.tokens), ("steps", found.steps))
    }
    groups = {name: _groups(rows, name) for name in ("kept", "generated")}
    return {
        "start, greedy": float(found.greedy[0]),
        "held-out reward, greedy": float(np.interp(budget, found.tokens, found.greedy)),
        "held-out reward, sampled": float(np.interp(budget, found.tokens, found.sampled)),
        **reached,
        "sampled tokens": float(min(budget, spent[-1])),
        "steps": float(len(rows)),
        "tokens per step": float(np.mean([row["sampled_tokens"] for row in rows])),
        "entropy, first step": entropy(folder, [1]),
        "entropy, last steps": entropy(folder, [row["step"] for row in rows[-LAST:]]),
        "informative groups, share": groups["kept"] / groups["generated"],
        "informative groups": groups["kept"],
    }


def _groups(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(
        sum(v for row in rows for key, v in row.items() if key.startswith("groups/") and key.endswith(f"/{name}"))
    )


def compare(runs: Mapping[str, Sequence[Mapping[str, float | None]]]) -> dict[str, dict[str, Any]]:
    """Return each figure over seeds, by arm, and its difference GRPO - DAPO over the seeds where both have one."""
    dapo, grpo = runs["dapo"], runs["grpo"]
    table: dict[str, dict[str, Any]] = {}
    for name in dapo[0]:
        pairs = [(one[name], two[name]) for one, two in zip(dapo, grpo, strict=True)]
        table[name] = {
            "dapo": _over([one for one, _ in pairs]),
            "grpo": _over([two for _, two in pairs]),
            "grpo - dapo": _over([None if None in (one, two) else two - one for one, two in pairs]),
        }
    return table


def _over(values: Sequence[float | None]) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    mean, low, high = interval(present) if present else (None, None, None)
    many = len(present) > 1
    return {
        "mean": mean,
        "low": low if many else None,
        "high": high if many else None,
        "seeds": len(present),
        "without": len(values) - len(present),
        "values": list(values),
    }


def _cell(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "never"
    form = ",.0f" if abs(found["mean"]) >= 100 else ".3f"
    limits = "" if found["low"] is None else f" [{found['low']:{form}}, {found['high']:{form}}]"
    without = f" ({found['without']} never)" if found["without"] else ""
    return f"{found['mean']:{form}}{limits}{without}"


def main() -> None:
    """Run what is not there yet, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recipe", default="recipes/quickstart.toml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each on one thread")
    parser.add_argument("--tokens", type=int, default=0, help="budget; that of the recipe under DAPO if left out")
    parser.add_argument("--every", type=int, default=2, help="steps between measurements")
    parser.add_argument("--targets", default="0.6,0.75", help="greedy held-out rewards to be reached")
    parser.add_argument("--set", action="append", default=[], help="a change to the recipe, for both objectives")
    parser.add_argument("--out", type=Path, default=Path("runs/dapo_grpo"))
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    def run(arm: str, seed: int, *budget: str) -> RunFolder:
        place = options.out / f"{arm}-{seed}"
        own = [f"seed={seed}", "threads=1", f"evaluate.every={options.every}"]
        train(options.recipe, place, [*options.set, *ARMS[arm], *own, *budget], ends_with="summary.json")
        return RunFolder.existing(place)

    tokens = options.tokens or sum(row["sampled_tokens"] for row in run("dapo", 0).metrics())
    budget = (f"max_sampled_tokens={tokens}", "steps=1000000")
    with ThreadPoolExecutor(options.jobs) as pool:
        # Seed by seed, so that a run of this script that was cut short has pairs to show.
        jobs = [(arm, pool.submit(run, arm, seed, *budget)) for seed in range(options.seeds) for arm in ARMS]
        folders = [(arm, job.result()) for arm, job in jobs]
    targets = [float(target) for target in options.targets.split(",")]
    runs = {arm: [figures(folder, tokens, targets) for name, folder in folders if name == arm] for arm in ARMS}
    table = compare(runs)
    if options.json:
        print(json.dumps({"tokens": tokens, "seeds": options.seeds, "figures": table}))
        return
    print(f"{options.seeds} seeds, {tokens:,} sampled tokens each; means with 95% intervals over seeds")
    names = ("dapo", "grpo", "grpo - dapo")
    print(f"{'':32}" + "".join(f"{name:34}" for name in names))
    for figure, row in table.items():
        print(f"{figure:32}" + "".join(f"{_cell(row[name]):34}" for name in names))


if __name__ == "__main__":
    main()
