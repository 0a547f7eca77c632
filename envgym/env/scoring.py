"""Ask an author's code for rewards, and check them before anything learns from them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, SupportsFloat, TypeAlias

from envgym.env.author_hooks import AuthorHooks, Reply
from envgym.env.culprit import contained
from envgym.errors import EnvironmentFailure, VerifierError
from envgym.records import Score, Trajectory

__all__ = ["ScoredEnv", "checked_group", "checked_reply", "checked_score"]

Span: TypeAlias = tuple[float, float]
"""The least and the greatest reward that an environment declares."""
_ROUNDING = 1e-9


class ScoredEnv(AuthorHooks):
    """The part of an environment that scores trajectories, those that were played elsewhere included."""

    reward_range: ClassVar[Span] = (0.0, 1.0)

    async def rescore(self, trajectory: Trajectory) -> Score:
        """Score a finished trajectory by itself, played here or stored; awaits where ``score`` is asynchronous.

        Raises:
            EpisodeError: ``score`` returned something other than a ``Score``, or one that is not finite or outside
                ``reward_range``.
        """
        with contained(EnvironmentFailure):
            given = self.score(trajectory)
            score = given if isinstance(given, Score) or not inspect.isawaitable(given) else await given
        return checked_score(score, trajectory, self.reward_range)

    async def rescore_group(self, trajectories: Sequence[Trajectory]) -> list[Score]:
        """Score finished trajectories of one task against each other, as ``score_group`` says.

        Returns:
            their scores in order; a new score keeps the old one's value as the metric ``individual``.

        Raises:
            EpisodeError: ``score_group`` returned the wrong number of scores, or one that is not finite or outside
                ``reward_range``.
        """
        with contained(EnvironmentFailure):
            given = self.score_group(trajectories)
            scores = await given if inspect.isawaitable(given) else given
        return checked_group(scores, trajectories, self.reward_range)


def checked_reply(given: Any, span: Span) -> Reply:
    """Return ``given``, the result of ``respond``, if its reward is 0 or one that the environment declares.

    Raises:
        EnvironmentFailure: it is not a ``Reply``, or its reward is no number, or outside ``span``.
        VerifierError: the reward is not finite.
    """
    if not isinstance(given, Reply):
        raise EnvironmentFailure(f"respond() must return a Reply, got {type(given).__name__}")
    if not isinstance(given.reward, float | SupportsFloat):
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
    rewards = sum(turn.reward for turn in trajectory.turns)
    for score in (given,) if given.as_it_stands is None else (given, given.as_it_stands):
        if not math.isfinite(score.value + score.accuracy + rewards):
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
