"""Limits of time, thousands at once, with one timer of the event loop.

A limit is mostly called off before it is reached. The loop's own timers would keep each one called off in a heap
that Python compares, and sort out thousands of them in one go.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable

__all__ = ["Alarms"]

_TICK_SECONDS = 0.01
"""Greatest lateness of an alarm."""


class Alarms:
    """Wakes futures when their time on a clock has come, never earlier.

    Args:
        now: the clock, in seconds; it may stand still, and never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        """Futures by tick."""
        self._ticks: list[int] = []
        """Heap of the ticks with futures, and of some that have none any more."""
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def set(self, end: float, waiting: asyncio.Future[None]) -> int:
        """Give ``waiting`` a result at ``end`` on the clock; return what ``call_off`` needs."""
        tick = math.ceil(end / _TICK_SECONDS)
        found = self._waiting.get(tick)
        if found is not None:
            found.add(waiting)
            return tick
        self._waiting[tick] = {waiting}
        heapq.heappush(self._ticks, tick)
        if self._timer is None or tick < self._next:
            self._arm()
        return tick

    def call_off(self, tick: int, waiting: asyncio.Future[None]) -> None:
        """Forget an alarm; it may have rung."""
        found = self._waiting.get(tick)
        if found is not None:
            found.discard(waiting)
            if not found:
                del self._waiting[tick]

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ticks and self._ticks[0] not in self._waiting:
            heapq.heappop(self._ticks)
        if self._ticks:
            self._next = self._ticks[0]
            left = self._next * _TICK_SECONDS - self._now()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._ring)

    def _ring(self) -> None:
        now = self._now()
        while self._ticks and self._ticks[0] * _TICK_SECONDS <= now:
            for waiting in self._waiting.pop(heapq.heappop(self._ticks), ()):
                if not waiting.done():
                    waiting.set_result(None)
        self._arm()
