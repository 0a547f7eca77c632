"""The groups of one environment from their beginning to their training, under a bound of staleness.

The bound is kept by what is begun and by who may overtake whom, so that nothing finished is ever thrown away:

- Step v trains weights of version v. A group that begins while v is current may be trained by step v + N at the
  latest, and is begun only if, trained in launch order, it will be: N + 1 steps' groups are under way at most.
- A step takes the first finished groups in launch order. A younger group may overtake an unfinished older one as
  long as all that are left can still be trained in time; then the step waits for the older one.

So short episodes come earlier, by N steps at most, and every group that has begun is trained on: the mix of long
and short ones is that of synchronous training, a little out of order.

AReaL (arXiv 2505.24298) bounds what is begun in the same way. To drop what has become too old, as TorchRL's
``PolicyAgeFilter`` does, loses long episodes more than short ones; to drop nothing and wait for nobody, as the
cookbook of Tinker does, leaves a slow group to be as old as it likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Place", "Window"]

GroupT = TypeVar("GroupT")


@dataclass(slots=True, eq=False)
class Place(Generic[GroupT]):
    """One group that was begun."""

    born: int
    """Version that was current then: no token of the group is older."""
    draw: tuple[int, int]
    """Number of the visit and index of the task, by which it can be begun again."""
    group: GroupT | None = None
    """The group, once it has finished."""


class Window(Generic[GroupT]):
    """What is under way for one environment.

    Args:
        max_staleness: number of versions N that a trained token may be behind the weights that it trains.
        step: number of the next step, which is the version of the weights that it trains.
    """

    def __init__(self, max_staleness: int, step: int) -> None:
        self._bound = max_staleness
        self._step = step
        self._quotas: deque[int] = deque()
        self._places: list[Place[GroupT]] = []

    @property
    def places(self) -> tuple[Place[GroupT], ...]:
        """Groups begun and not taken, in launch order."""
        return tuple(self._places)

    @property
    def finished(self) -> list[Place[GroupT]]:
        """Groups finished and not taken, in launch order."""
        return [place for place in self._places if place.group is not None]

    @property
    def quotas(self) -> tuple[int, ...]:
        """Numbers of groups of the next step and of those after it, as far as they are planned."""
        return tuple(self._quotas)

    @property
    def need(self) -> int:
        """Number of groups of the next step."""
        return self._quotas[0]

    def plan(self, quotas: Iterable[int]) -> None:
        """Add the numbers of groups of the steps after those that are planned."""
        self._quotas.extend(quotas)

    def wanted(self, last: int) -> int:
        """Return the number of groups to begin so that there are enough for the steps up to number ``last``."""
        return max(0, sum(list(self._quotas)[: last - self._step + 1]) - len(self._places))

    def begin(self, version: int, draw: tuple[int, int]) -> Place[GroupT]:
        """Add a group that begins now, under the weights ``version``."""
        place: Place[GroupT] = Place(version, draw)
        self._places.append(place)
        return place

    def discard(self, place: Place[GroupT]) -> None:
        """Remove a group that is not to be trained on."""
        self._places.remove(place)

    def choose(self, *, fewer: bool = False) -> list[Place[GroupT]] | None:
        """Return the groups that the next step would take, or ``None`` while it has to wait.

        Args:
            fewer: be content with less than the step needs.
        """
        chosen = self.finished[: self.need]
        if len(chosen) < self.need and not fewer:
            return None
        taken = set(map(id, chosen))
        return chosen if self._in_time([place for place in self._places if id(place) not in taken]) else None

    def _in_time(self, left: list[Place[GroupT]]) -> bool:
        """Return true if all that is left keeps the bound, trained in launch order after the next step."""
        later = [step for step, quota in enumerate(list(self._quotas)[1:], self._step + 1) for _ in range(quota)]
        if len(left) > len(later):
            return False
        return all(step <= place.born + self._bound for step, place in zip(later, left, strict=False))

    def take(self, chosen: list[Place[GroupT]]) -> list[GroupT]:
        """Remove what ``choose`` returned, and end the step; return the groups."""
        taken = set(map(id, chosen))
        self._places = [place for place in self._places if id(place) not in taken]
        self._quotas.popleft()
        self._step += 1
        return [place.group for place in chosen if place.group is not None]
