"""Rubrics: named, weighted reward functions that make one score with its breakdown."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal, SupportsFloat

from envgym.errors import VerifierError
from envgym.records import OutcomeKind, Score, Trajectory

__all__ = ["Reward", "RewardFunction", "Rubric"]

RewardFunction = Callable[[Trajectory], float | Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """One named component, in [0, 1] by convention."""

    name: str
    function: RewardFunction
    weight: float = 1.0
    gate: bool = False
    """A gate that scores 0 sends the whole score to the floor; its weight is not added."""


class Rubric:
    """A weighted sum of rewards.

    The first reward that is not a gate is the task's unshaped success, ``Score.accuracy``.

    Args:
        rewards: the components; names must differ.
        floor: the score of a failed gate and of a truncated episode under ``truncated="floor"``.
        truncated: ``"floor"`` gives a truncated episode the floor, and keeps what it would be worth else as
            ``Score.as_it_stands``, which a recipe may train on; ``"score"`` scores it as it stands.
    """

    def __init__(
        self, *rewards: Reward, floor: float = 0.0, truncated: Literal["floor", "score"] = "floor"
    ) -> None:
        names = [r.name for r in rewards]
        if len(set(names)) != len(names):
            raise ValueError(f"reward names must differ, got {names}")
        if all(r.gate for r in rewards):
            raise ValueError("a rubric needs at least one reward that is not a gate")
        self.rewards = rewards
        self.floor = floor
        self.truncated = truncated

    async def score(self, trajectory: Trajectory) -> Score:
        """Score a finished trajectory.

        Raises:
            VerifierError: a component is not a finite number; an undecided verifier is never a zero.
        """
        components: dict[str, float] = {}
        for reward in self.rewards:
            result = reward.function(trajectory)
            # Looked at first, as isawaitable takes longer than most rewards.
            value = result if isinstance(result, float) or not inspect.isawaitable(result) else await result
            if not isinstance(value, float | SupportsFloat) or not math.isfinite(value):
                raise VerifierError(f"reward {reward.name!r} returned {value!r:.200}")
            components[reward.name] = float(value)
        scored = [r for r in self.rewards if not r.gate]
        closed = any(components[r.name] == 0 for r in self.rewards if r.gate)
        floor = Score(value=self.floor, accuracy=0.0, components=components)
        if closed:
            return floor
        total = sum(r.weight * components[r.name] for r in scored)
        accuracy = components[scored[0].name]
        if trajectory.outcome.kind is OutcomeKind.TRUNCATED and self.truncated == "floor":
            return replace(floor, as_it_stands=Score(value=total, accuracy=accuracy))
        return Score(value=total, accuracy=accuracy, components=components)
