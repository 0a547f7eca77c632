"""Check the rewards of an author's ``respond``, ``score`` and ``score_group`` before anything learns from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsFloat, TypeAlias

from envgym.env.author_hooks import Reply
from envgym.errors import EnvironmentFailure, VerifierError
from envgym.records import Score, Trajectory

__all__ = ["checked_group", "checked_reply", "checked_score"]

Span: TypeAlias = tuple[float, float]
"""The least and the greatest reward that an environment declares."""
_ROUNDING = 1e-9


def checked_reply(given: Any, span: Span) -> Reply:
    """Return ``given``, the result of ``respond``, if its reward is 0 or one that the environment declares.

    Raises:
        EnvironmentFailure: it is not a ``Reply``, or its reward is no number, or outside ``span``.
        VerifierError: the reward is not finite.
    """
    if not isinstance(given, Reply):
        raise EnvironmentFailure(f"respond() must return a Reply, got {type(given).__name__}")
    if not isinstance(given.reward, SupportsFloat):
        raise EnvironmentFailure(f"the reward of respond() must be a number, got {type(given.reward).__name__}")
    if not math.isfinite(given.reward):
        raise VerifierError(f"the reward of respond() is not a number: {given.reward}")
    if given.reward:
        _check_span(given.reward, span, "the reward of respond()")
    return given


def _check_span(value: float, span: Span, source: str) -> None:
    low, high = span
    # Sums of weights are rounded: 0.7 + 0.2 + 0.1 is not 1.
    slack = _ROUNDING * max(1.0, abs(low), abs(high))
    if not low - slack <= value <= high + slack:
        raise EnvironmentFailure(f"{source} is {value:g}, outside reward_range, which is {low:g} to {high:g}")


def checked_score(given: Any, trajectory: Trajectory, span: Span, source: str = "score()") -> Score:
    """Return ``given``, the result of ``source``, if it is a score that makes a finite reward.

    Args:
        given: what the author's code returned.
        trajectory: what was scored.
        span: the environment's ``reward_range``.
        source: name of the author's code, for messages.

    Raises:
        EnvironmentFailure: it is not a ``Score``, or its value is outside ``span``.
        VerifierError: the reward is not a finite number.
    """
    if not isinstance(given, Score):
        raise EnvironmentFailure(f"{source} must return a Score, got {type(given).__name__}")
    for score in (given, given.as_it_stands or given):
        if not math.isfinite(score.value + score.accuracy + sum(turn.reward for turn in trajectory.turns)):
            raise VerifierError(f"a reward that is not a number: {score.value}, accuracy {score.accuracy}")
        _check_span(score.value, span, f"the value of {source}")
    return given


def checked_group(given: Any, trajectories: Sequence[Trajectory], span: Span) -> list[Score]:
    """Return the scores of a group, each new one with the old one's value as the metric ``individual``.

    Raises:
        EnvironmentFailure: the result is not one ``Score`` within ``span`` per trajectory.
        VerifierError: a reward is not a finite number.
    """
    if not isinstance(given, Sequence) or len(given) != len(trajectories):
        raise EnvironmentFailure(f"score_group() must return {len(trajectories)} scores, got {given!r:.200}")
    source = "score_group(), for each trajectory,"
    checked = [checked_score(s, t, span, source) for s, t in zip(given, trajectories, strict=True)]
    return [_with_the_old(s, t.score) for s, t in zip(checked, trajectories, strict=True)]


def _with_the_old(score: Score, old: Score | None) -> Score:
    if old is None or score is old:
        return score
    return replace(score, metrics={**score.metrics, "individual": old.value})
