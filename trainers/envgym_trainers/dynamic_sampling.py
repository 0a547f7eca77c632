"""Dynamic sampling: only groups with a signal fill the batch. DAPO, arXiv 2503.14476, section 3.2.

A group whose members all score the same has advantage 0 throughout: it costs a rollout and teaches nothing.
The score looked at is the *unshaped* metric (accuracy): a length penalty would make every group look
different.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from envgym.errors import UserError
from envgym_trainers.advantages import EQUAL_WITHIN

__all__ = ["AtCap", "DynamicSampling", "Refill", "RefillCounters", "Signal", "signal"]

GroupT = TypeVar("GroupT")


class Signal(enum.StrEnum):
    """What a group has to teach."""

    KEPT = "kept"
    ALL_SOLVED = "all_solved"
    ALL_FAILED = "all_failed"
    MISSING = "missing"


class AtCap(enum.StrEnum):
    """What to do when the attempts are spent and the batch is not full."""

    RAISE = "raise"
    TRAIN = "train"
    PAD = "pad"


class DynamicSampling(BaseModel):
    """Settings of the refill."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: int = Field(default=10, ge=1)
    """Most groups generated for one step, in multiples of the groups that the step needs."""
    at_cap: AtCap = AtCap.RAISE
    """Raise, train on what there is, or pad with groups of the step that have no signal."""
    solved_at: float = 1.0
    """Metric from which on a group of equal members counts as solved rather than failed."""


def signal(metrics: Sequence[float], *, solved_at: float = 1.0) -> Signal:
    """Judge a group by its unshaped metric.

    Args:
        metrics: one per member, NaN where the episode is missing.
        solved_at: see ``DynamicSampling``.

    Returns:
        ``KEPT`` if two members differ by ``EQUAL_WITHIN`` or more, ``MISSING`` if fewer than two members are
        valid.
    """
    present = [value for value in metrics if not math.isnan(value)]
    if len(present) < 2:
        return Signal.MISSING
    if max(present) - min(present) >= EQUAL_WITHIN:
        return Signal.KEPT
    return Signal.ALL_SOLVED if present[0] >= solved_at else Signal.ALL_FAILED


@dataclass(slots=True, kw_only=True)
class RefillCounters:
    """Groups of one step, by what became of them."""

    generated: int = 0
    kept: int = 0
    all_solved: int = 0
    all_failed: int = 0
    missing: int = 0
    """Groups with fewer than two valid members."""
    surplus: int = 0
    """Kept groups beyond the step's need, carried over to the next step."""


class Refill(Generic[GroupT]):
    """Collects groups with a signal until a step has enough; the surplus opens the next step.

    One step::

        while refill.wanted:
            for group in generate(refill.wanted):
                refill.offer(group, accuracies(group))
        groups, counters = refill.take()
    """

    def __init__(self, target: int, settings: DynamicSampling, *, carried: Iterable[GroupT] = ()) -> None:
        """Start empty, or with what ``carried`` held when a checkpoint was written.

        Args:
            target: groups per step (P_train), at least 1.
            settings: cap and what happens there.
            carried: groups with a signal left over from an earlier step.

        Raises:
            ValueError: ``target`` is not positive.
        """
        if target < 1:
            raise ValueError(f"target must be at least 1, got {target}")
        self._target = target
        self._settings = settings
        self._kept: deque[GroupT] = deque(carried)
        self._constant: list[GroupT] = []
        self._counters = RefillCounters()

    @property
    def carried(self) -> tuple[GroupT, ...]:
        """Groups with a signal that no step has taken yet, oldest first."""
        return tuple(self._kept)

    @property
    def wanted(self) -> int:
        """Groups to generate next; 0 once the step is full or its attempts are spent.

        More may be offered: what is not needed is carried over.
        """
        cap = self._settings.max_attempts * self._target
        return max(0, min(self._target - len(self._kept), cap - self._counters.generated))

    def offer(self, group: GroupT, metrics: Sequence[float]) -> Signal:
        """Count a generated group and keep it if it has a signal.

        Args:
            group: anything.
            metrics: unshaped metric of each member, NaN where missing.
        """
        verdict = signal(metrics, solved_at=self._settings.solved_at)
        self._counters.generated += 1
        setattr(self._counters, verdict.value, getattr(self._counters, verdict.value) + 1)
        if verdict is Signal.KEPT:
            self._kept.append(group)
        elif verdict is not Signal.MISSING:
            self._constant.append(group)
        return verdict

    def take(self) -> tuple[list[GroupT], RefillCounters]:
        """End the step: its groups, at most the target, and its counters.

        Padding comes last and may fall short when groups were missing.

        Raises:
            UserError: the step is not full, its attempts are spent and the setting says raise.
            RuntimeError: the step is not full and attempts are left.
        """
        if self.wanted:
            raise RuntimeError(f"{self.wanted} more groups are wanted before the step can be taken")
        short = self._target - len(self._kept)
        if short > 0 and self._settings.at_cap is AtCap.RAISE:
            raise UserError(self._spent())
        groups = [self._kept.popleft() for _ in range(min(self._target, len(self._kept)))]
        if short > 0 and self._settings.at_cap is AtCap.PAD:
            groups += self._constant[:short]
        counters = self._counters
        counters.surplus = len(self._kept)
        self._counters, self._constant = RefillCounters(), []
        return groups, counters

    def _spent(self) -> str:
        seen = self._counters
        return (
            f"dynamic sampling found {len(self._kept)} of {self._target} groups with a signal among "
            f"{seen.generated} (all solved {seen.all_solved}, all failed {seen.all_failed}, "
            f"missing {seen.missing}); choose tasks nearer the policy's ability, "
            "raise group size or max_attempts, or set at_cap to 'train' or 'pad'"
        )
