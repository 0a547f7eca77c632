"""The training loop without what it trains: collect groups, learn from them, publish the weights."""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from envgym.rollout.collector import Group
from envgym_trainers.stages.step_groups import StepGroups

__all__ = ["Learn", "Phase", "Publish", "Source", "Step", "Steps"]

Phase = Literal["sampling", "learning"]
Learn = Callable[[Sequence[Group], int], Awaitable[dict[str, float]]]
"""Learns from the groups of a step, given its number from 1; returns metrics."""
Publish = Callable[[int], Awaitable[None]]
"""Gives the engine the new weights under their version, which is the number of steps done."""


class Source(abc.ABC):
    """Where groups come from; use as a context manager."""

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is under way."""

    @abc.abstractmethod
    async def collect(self) -> StepGroups:
        """Return the groups of the next step.

        Raises:
            UserError: dynamic sampling spent its attempts and ``at_cap`` is ``raise``.
            TooManyFailures: more episodes failed than the recipe allows.
        """

    def published(self, version: int) -> None:
        """Learn that the engine has the weights ``version``."""

    @property
    def busy_seconds(self) -> float:
        """Seconds in which groups were under way, without ``collect`` or in it; 0 if that is never without it."""
        return 0.0

    @abc.abstractmethod
    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """Return what writes the present state down for a checkpoint, later and in another thread as well."""

    @abc.abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what a ``snapshot`` wrote down, before this is entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step that was taken."""

    number: int
    collected: StepGroups
    metrics: dict[str, float]
    sampling_seconds: float
    """Seconds for which learning waited for groups."""
    learning_seconds: float
    """Seconds of learning and publishing."""
    overlap_seconds: float
    """Seconds of these in which groups were under way."""


class Steps:
    """Takes one step after another.

    Args:
        source: gives the groups.
        learn: learns from them.
        publish: hands the new weights to the engine.
        done: number of steps done, which is the version of the current weights.
        show: shows how far the work of a phase is, while it is entered.
    """

    def __init__(
        self,
        source: Source,
        learn: Learn,
        publish: Publish,
        *,
        done: int = 0,
        show: Callable[[Phase], AbstractContextManager[None]] = lambda phase: contextlib.nullcontext(),
    ) -> None:
        self._source = source
        self._learn = learn
        self._publish = publish
        self._show = show
        self.done = done

    async def take(self) -> Step:
        """Take a step; only one at a time."""
        started = time.monotonic()
        with self._show("sampling"):
            collected = await self._source.collect()
        sampled, busy = time.monotonic(), self._source.busy_seconds
        with self._show("learning"):
            metrics = await self._learn(collected.groups, self.done + 1)
        self.done += 1
        await self._publish(self.done)
        overlap = self._source.busy_seconds - busy
        self._source.published(self.done)
        return Step(
            number=self.done,
            collected=collected,
            metrics=metrics,
            sampling_seconds=sampled - started,
            learning_seconds=time.monotonic() - sampled,
            overlap_seconds=overlap,
        )
