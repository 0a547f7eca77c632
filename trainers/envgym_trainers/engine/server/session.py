"""One conversation with a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from envgym.errors import PolicyError
from envgym_trainers.engine.checks import check_room
from envgym_trainers.engine.interface import EngineSession, Sampled, SamplingParams

__all__ = ["Complete", "ServerSession"]

Complete = Callable[[list[int], SamplingParams, int], Coroutine[Any, Any, Sampled]]
"""Samples after a conversation's ids, with a seed."""


class ServerSession(EngineSession):
    """Sends the whole conversation each time; its server finds the beginning in its prefix cache.

    Args:
        complete: samples.
        capacity: maximum number of tokens.
        ended: called once, when the session is closed.
    """

    def __init__(self, complete: Complete, capacity: int, ended: Callable[[ServerSession], None]) -> None:
        self._complete = complete
        self._capacity = capacity
        self._ended = ended
        self._ids: list[int] = []
        self._busy = False
        """True while a call runs, and for good after one was cancelled or failed."""
        self._closed = False
        self._task: asyncio.Task[Sampled] | None = None

    @property
    def length(self) -> int:
        """Number of tokens; see ``EngineSession.length``."""
        return len(self._ids)

    def rewrite(self) -> None:
        """Clear the conversation; see ``EngineSession.rewrite``."""
        self._ids = []

    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        """Sample; see ``EngineSession.sample``."""
        self._check_open()
        if self._busy:
            raise RuntimeError("a session samples once at a time, and not after a call was cancelled or failed")
        ids = [*self._ids, *new_ids]
        check_room(len(self._ids), len(new_ids), params.max_tokens, self._capacity)
        self._busy = True
        self._task = asyncio.ensure_future(self._complete(ids, params, seed))
        try:
            sampled = await self._task
        except asyncio.CancelledError:
            self._check_open()  # whoever closed it cancelled the task, and not the caller
            raise
        self._ids = [*ids, *sampled.ids]
        self._busy = False
        return sampled

    def _check_open(self) -> None:
        if self._closed:
            raise PolicyError("the engine, or this conversation, was closed")

    async def close(self) -> None:
        """End the conversation; see ``EngineSession.close``."""
        if self._closed:
            return
        self._closed = True
        self._ended(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
