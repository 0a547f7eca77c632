"""A bound on how much thousands of episodes do in one pass of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Throttle"]


class Throttle:
    """Lets a few coroutines go on in each pass of the event loop, in order of arrival.

    Where many wake in one pass, everything else waits until the last of them has done its work, and timers that
    fall due meanwhile make the next pass longer still.

    Args:
        each: how many go on in one pass.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._left = each
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next: asyncio.Handle | None = None

    async def turn(self) -> None:
        """Wait for a turn; there is one at once while few ask."""
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._pass)
        if self._left and not self._waiting:
            self._left -= 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _pass(self) -> None:
        """Begin the next pass, with as many turns as each has."""
        self._next = None
        self._left = self._each
        while self._left and self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # cancelled
                self._left -= 1
                future.set_result(None)
        if self._waiting:
            self._next = asyncio.get_running_loop().call_soon(self._pass)
