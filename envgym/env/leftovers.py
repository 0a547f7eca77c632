"""Tasks that an author's code started and left behind, such as one that keeps a connection alive.

They go on, and are cancelled at the end of the event loop as any other. ``asyncio.run`` would wait for ever for
one that swallows its cancellation; a keeper cancels them in its place, and waits for a grace.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Any

from envgym.env.culprit import culprit, frames_of
from envgym.env.works import detach, left_behind, outside

__all__ = ["keep_leftovers"]

_GRACE_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


class _Keeper:
    """Keeps the leftovers of one loop."""

    def __init__(self) -> None:
        self._kept: set[asyncio.Task[Any]] = set()
        self._waiting: asyncio.Task[None] | None = None

    def keep(self, task: asyncio.Task[Any]) -> None:
        detach(task)
        self._kept.add(task)
        task.add_done_callback(self._forget)
        if self._waiting is None or self._waiting.done():
            with outside():
                self._waiting = asyncio.create_task(self._wait_for_the_end())

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._kept.discard(task)
        if not self._kept and self._waiting is not None:
            self._waiting.cancel()

    async def _wait_for_the_end(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            left = set(self._kept)
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=_GRACE_SECONDS)
            for task in left:
                _LOG.warning("not waited for: a task goes on after it was cancelled: %s", _name(task))


_keepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Keeper] = weakref.WeakKeyDictionary()


def keep_leftovers() -> None:
    """Take over the tasks that authors' code, now over, left behind in the running loop."""
    for task in left_behind():
        _keepers.setdefault(asyncio.get_running_loop(), _Keeper()).keep(task)


def _name(task: asyncio.Task[Any]) -> str:
    return culprit(frames_of(task.get_coro())) or task.get_name()
