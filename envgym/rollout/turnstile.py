"""A turnstile for episodes: it bounds how many are in flight, and tells when all of them wait for the policy.

Sampling that goes on only then is reproducible: which conversations share a batch depends on what the episodes
do, and not on how long their tools take. Floating-point results depend on the batch, so nothing less makes runs
equal bit for bit.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
from collections.abc import Iterator

from envgym.rollout.throttle import Throttle

__all__ = ["Turnstile"]

_QUIET_PASSES = 32
"""Passes of the event loop without work after which nothing is about to begin: what follows on the end of an
episode, such as the next group, takes fewer."""


_SLICE = 16
"""Episodes let in, and those that begin a turn, during one pass of the event loop."""


class Turnstile:
    """Lets episodes in, at most ``slots`` at once.

    Args:
        slots: maximum number of episodes in flight.
    """

    def __init__(self, slots: int) -> None:
        self.ordered = False
        """Let episodes in by their keys, once those inside wait for the policy; else in order of arrival."""
        self._free = slots
        self._entrants: list[tuple[tuple[str, ...], int, asyncio.Future[None]]] = []
        """Heap of those who wait, by key and arrival; some may have been cancelled."""
        self._arrivals = itertools.count()
        self._admitting: asyncio.Handle | None = None
        self._working = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._steward: asyncio.Task[bool] | None = None
        self._throttle = Throttle(_SLICE)

    async def enter(self, key: tuple[str, ...]) -> None:
        """Wait for a slot. The episode is at work from then on, except in ``waiting``.

        Args:
            key: decides who comes first, where the turnstile is ordered.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._entrants, (key if self.ordered else (), next(self._arrivals), future))
        self._let_in()
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Free the slot of an episode that is over."""
        self._free += 1
        self._work(-1)
        self._let_in()

    async def turn(self) -> None:
        """Wait until an episode inside may begin a turn in this pass of the event loop."""
        await self._throttle.turn()

    def pause(self) -> None:
        """Mark that an episode inside begins to wait, for the policy or for episodes nested in it."""
        self._work(-1)

    def resume(self) -> None:
        """Mark that an episode that waited is at work again."""
        self._work(1)

    def waiting(self) -> _Waiting:
        """Pause, and resume at the end."""
        return _Waiting(self)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Mark that a nested episode is at work, which needs no slot of its own."""
        self._work(1)
        try:
            yield
        finally:
            self._work(-1)

    async def settled(self, patience: float = 30.0) -> bool:
        """Wait until every episode inside waits for the policy, and none is left to let in.

        Args:
            patience: seconds to wait; a tool that takes longer must not hold up everyone.

        Returns:
            false if somebody was still at work then.
        """
        try:
            async with asyncio.timeout(patience):
                await self._quiet()
                while self._free and self._entrants:
                    self._admit()
                    await self._quiet()
        except TimeoutError:
            self._admit()
            return False
        return True

    def close(self) -> None:
        """Let nobody in any more who has waited until it is quiet."""
        if self._steward is not None:
            self._steward.cancel()

    def _let_in(self) -> None:
        """Let in who waits: a few in each pass, or in order once it is quiet, as nobody may be left to ask."""
        if not self._free or not self._entrants:
            return
        if not self.ordered:
            if self._admitting is None:
                self._admitting = asyncio.get_running_loop().call_soon(self._admit_some)
        elif self._steward is None or self._steward.done():
            self._steward = asyncio.create_task(self.settled())
            self._steward.add_done_callback(lambda steward: None if steward.cancelled() else self._let_in())

    def _admit_some(self) -> None:
        self._admitting = None
        self._admit(_SLICE)
        self._let_in()

    async def _quiet(self) -> None:
        passes = 0
        while passes < _QUIET_PASSES:
            await self._idle.wait()
            await asyncio.sleep(0)
            passes = 0 if self._working else passes + 1

    def _admit(self, most: float = math.inf) -> None:
        while most and self._free and self._entrants:
            _, _, future = heapq.heappop(self._entrants)
            if not future.done():
                most -= 1
                self._free -= 1
                self._work(1)
                future.set_result(None)

    def _work(self, change: int) -> None:
        self._working += change
        if not self._working:
            self._idle.set()
        elif self._working == change:
            self._idle.clear()


class _Waiting:
    __slots__ = ("_turnstile",)

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile

    def __enter__(self) -> None:
        self._turnstile.pause()

    def __exit__(self, *_: object) -> None:
        self._turnstile.resume()
