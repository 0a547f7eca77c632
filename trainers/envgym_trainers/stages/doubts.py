"""What a user should know before believing a figure: episodes that did not complete, steps without a signal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envgym.evaluate import EnvScores
from envgym.runs.table import endings_text
from envgym_trainers.objectives import Objective
from envgym_trainers.objectives.ops.importance import ImportanceSettings
from envgym_trainers.recipe import ReinforcementRecipe

__all__ = ["no_signal", "share_warnings", "training_warnings", "uncorrected"]

_TOO_MANY = 0.2
"""Share of episodes cut or failed above which a mean says little of the policy."""


def training_warnings(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the metrics of a run warn of: episodes that did not complete, and steps that taught nothing."""
    for name, what in (("not_finite", "trajectories were left out"), ("skipped", "updates were skipped")):
        count = int(sum(row.get(name) or 0 for row in rows))
        if count:
            yield f"{count} {what}, not finite"
    for label in _labels(rows):
        ended: Counter[str] = Counter()
        for row in rows:
            ended.update(endings_of(row, label))
        yield from _too_many(f"{label}, training", ended)
        silent = [row for row in rows if no_signal(row, label)]
        if len(silent) > len(rows) * _TOO_MANY:
            last = no_signal(silent[-1], label)
            yield f"{label}: no group had a signal in {len(silent)} of {len(rows)} steps (at last: {last})"


def uncorrected(recipe: ReinforcementRecipe, objective: Objective) -> Iterator[str]:
    """Yield a warning if tokens of older weights will count as if the current ones had sampled them."""
    config = objective.config
    if recipe.asynchronous.max_staleness and isinstance(config, ImportanceSettings) and not config.importance_cap:
        yield (
            "asynchronous training without objective.importance_cap: tokens of older weights count as if the "
            "current ones had sampled them; importance_cap = 2 weighs them by how likely they are now"
        )


def share_warnings(*measured: Mapping[str, Mapping[str, EnvScores]] | None) -> Iterator[str]:
    """Yield the environments of evaluations in which too many episodes did not complete."""
    for when, scores in zip(("before", "after"), measured, strict=True):
        for decoding, found in (scores or {}).items():
            for label, environment in found.items():
                yield from _too_many(f"{label}, {decoding}, {when} training", environment.ended)


def no_signal(row: Mapping[str, Any], label: str) -> str:
    """Return why no group of a step had a signal: ``all solved``, ``all failed`` or both; ``""`` if one had."""
    counts = {name: int(row.get(f"groups/{label}/{name}") or 0) for name in ("kept", "all_solved", "all_failed")}
    if counts["kept"] or not sum(counts.values()):
        return ""
    return ", ".join(f"{n} groups {name.replace('_', ' ')}" for name, n in counts.items() if n)


def endings_of(row: Mapping[str, Any], label: str) -> dict[str, int]:
    """Return the numbers of a step's episodes of one environment, by ``Trajectory.ending``."""
    start = f"ended/{label}/"
    return {name.removeprefix(start): int(n or 0) for name, n in row.items() if name.startswith(start)}


def _too_many(where: str, ended: Mapping[str, int]) -> Iterator[str]:
    total = sum(ended.values())
    if total and 1 - ended.get("completed", 0) / total > _TOO_MANY:
        yield f"{where}: {endings_text(ended)}"


def _labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = (name.split("/")[1] for row in rows for name in row if name.startswith("ended/"))
    return list(dict.fromkeys(found))
