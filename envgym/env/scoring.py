"""Check the results of an author's ``score`` and ``score_group`` before anything learns from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from envgym.errors import EnvironmentFailure, VerifierError
from envgym.records import Score, Trajectory

__all__ = ["checked_group", "checked_score"]


def checked_score(given: Any, trajectory: Trajectory, source: str = "score()") -> Score:
    """Return ``given``, the result of ``source``, if it is a score that makes a finite reward.

    Raises:
        EnvironmentFailure: it is not a ``Score``.
        VerifierError: the reward is not a finite number.
    """
    if not isinstance(given, Score):
        raise EnvironmentFailure(f"{source} must return a Score, got {type(given).__name__}")
    for score in (given, given.as_it_stands or given):
        if not math.isfinite(score.value + score.accuracy + sum(turn.reward for turn in trajectory.turns)):
            raise VerifierError(f"a reward that is not a number: {score.value}, accuracy {score.accuracy}")
    return given


def checked_group(given: Any, trajectories: Sequence[Trajectory]) -> list[Score]:
    """Return the scores of a group, each new one with the old one's value as the metric ``individual``.

    Raises:
        EnvironmentFailure: the result is not one ``Score`` per trajectory.
        VerifierError: a reward is not a finite number.
    """
    if not isinstance(given, Sequence) or len(given) != len(trajectories):
        raise EnvironmentFailure(f"score_group() must return {len(trajectories)} scores, got {given!r:.200}")
    source = "score_group(), for each trajectory,"
    return [_with_the_old(checked_score(s, t, source), t.score) for s, t in zip(given, trajectories, strict=True)]


def _with_the_old(score: Score, old: Score | None) -> Score:
    if old is None or score is old:
        return score
    return replace(score, metrics={**score.metrics, "individual": old.value})
