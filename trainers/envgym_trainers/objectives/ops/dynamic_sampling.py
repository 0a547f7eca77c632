"""Dynamic sampling: only groups with a signal fill the batch. DAPO, arXiv 2503.14476, section 3.2.

A group whose members all score the same has advantage 0 throughout: it costs a rollout and gives no gradient.
Members are compared by the *unshaped* metric (accuracy), because a length penalty would make those of every group
differ.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Generic, TypeVar

from pydantic import Field

from envgym.config import Section
from envgym.errors import UserError
from envgym_trainers.objectives.ops.advantages import EQUAL_WITHIN

__all__ = ["AtCap", "DynamicSampling", "Refill", "RefillCounters", "Signal", "signal", "spent_message"]

GroupT = TypeVar("GroupT")


class Signal(enum.StrEnum):
    """The signal of a group."""

    KEPT = "kept"
    ALL_SOLVED = "all_solved"
    ALL_FAILED = "all_failed"
    MISSING = "missing"


class AtCap(enum.StrEnum):
    """Action when the attempts are spent and the batch is not full."""

    TRAIN = "train"
    STOP = "stop"
    RAISE = "raise"


class DynamicSampling(Section):
    """Settings of the refill."""

    max_attempts: int = Field(default=10, ge=1)
    """Maximum number of groups generated for one step, in multiples of the groups that the step needs."""
    at_cap: AtCap = AtCap.TRAIN
    """train: on the groups found, however few; stop: the same, but the first step without any ends the run;
    raise: a step that is not full is an error, for experiments whose batches must all be of one size."""
    max_empty_steps: int = Field(default=5, ge=1)
    """Steps in a row with nothing to learn from after which the run ends, whatever ``at_cap`` is."""
    oversample: float = Field(default=1.0, ge=1)
    """Groups begun at once, in multiples of the need. The surplus opens the next step."""
    solved_at: float = 1.0
    """Metric at or above which a group of equal members counts as solved instead of failed."""

    @property
    def patience(self) -> int:
        """Number of steps in a row with nothing to learn from after which the run ends."""
        return 1 if self.at_cap is AtCap.STOP else self.max_empty_steps


def signal(metrics: Sequence[float], *, solved_at: float = 1.0) -> Signal:
    """Classify a group by its unshaped metric.

    Args:
        metrics: unshaped metric of each member, NaN where the episode is missing or takes no part in training.
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
    """Numbers of groups of one step, by their outcome."""

    generated: int = 0
    kept: int = 0
    all_solved: int = 0
    all_failed: int = 0
    missing: int = 0
    """Groups with fewer than two valid members."""
    surplus: int = 0
    """Kept groups beyond the step's need, carried over to the next step."""


class Refill(Generic[GroupT]):
    """Collects groups with a signal until a step has enough; the surplus is carried to the next step.

    One step, with the groups launched and not yet offered in ``running``::

        while running or refill.wanted(0):
            running += launch(refill.wanted(len(running)))
            refill.offer(*first_finished(running))
        groups, counters = refill.take()

    A step takes groups in launch order, not in the order of completion, which depends on timing and would bias the
    step to short episodes.
    """

    def __init__(self, target: int, settings: DynamicSampling, *, carried: Iterable[GroupT] = ()) -> None:
        """Start empty, or with the groups that an earlier step carried over.

        Args:
            target: number of groups per step (P_train), at least 1.
            settings: the cap on attempts, and the action at the cap.
            carried: groups with a signal left over from an earlier step.

        Raises:
            ValueError: ``target`` is not positive.
        """
        if target < 1:
            raise ValueError(f"target must be at least 1, got {target}")
        self._target = target
        self._settings = settings
        self._carried: deque[GroupT] = deque(carried)
        self._kept: dict[int, GroupT] = {}
        self._counters = RefillCounters()

    @property
    def carried(self) -> tuple[GroupT, ...]:
        """Groups with a signal that no step has taken yet, oldest first."""
        return tuple(self._carried)

    def wanted(self, running: int) -> int:
        """Return the number of groups to begin now; 0 once the step is full or its attempts are spent."""
        need: float = self._target - len(self._carried) - len(self._kept)
        # Only the first launch is oversampled: later ones only replace groups without a signal.
        if not running and not self._counters.generated:
            need *= self._settings.oversample
        cap = self._settings.max_attempts * self._target - self._counters.generated
        return max(0, min(math.ceil(need), cap) - running)

    def offer(self, number: int, group: GroupT, metrics: Sequence[float]) -> Signal:
        """Count a finished group and keep it if it has a signal.

        Args:
            number: index of the group in launch order.
            group: anything.
            metrics: unshaped metric of each member, NaN where missing.
        """
        verdict = signal(metrics, solved_at=self._settings.solved_at)
        self._counters.generated += 1
        setattr(self._counters, verdict.value, getattr(self._counters, verdict.value) + 1)
        if verdict is Signal.KEPT:
            self._kept[number] = group
        return verdict

    def take(self) -> tuple[list[GroupT], RefillCounters]:
        """End the step; return its groups, at most the target, and its counters.

        Raises:
            UserError: the step is not full, its attempts are spent and ``at_cap`` is ``raise``.
            RuntimeError: the step is not full and attempts are left.
        """
        if more := self.wanted(0):
            raise RuntimeError(f"{more} more groups are wanted before the step can be taken")
        available = deque([*self._carried, *(group for _, group in sorted(self._kept.items(), key=itemgetter(0)))])
        short = self._target - len(available)
        if short > 0 and self._settings.at_cap is AtCap.RAISE:
            raise UserError(spent_message(len(available), self._target, asdict(self._counters)))
        groups = [available.popleft() for _ in range(min(self._target, len(available)))]
        counters = self._counters
        counters.surplus = len(available)
        self._carried, self._kept = available, {}
        self._counters = RefillCounters()
        return groups, counters


def spent_message(found: int, target: int, counters: Mapping[str, int]) -> str:
    """Return what to tell a user whose step could not be filled; ``counters`` as in ``RefillCounters``."""
    return (
        f"dynamic sampling found {found} of {target} groups with a signal among {counters['generated']} "
        f"(all solved {counters['all_solved']}, all failed {counters['all_failed']}, missing "
        f"{counters['missing']}); choose tasks nearer the policy's ability, raise group size or max_attempts, or "
        "set at_cap to 'train' or 'stop'"
    )
