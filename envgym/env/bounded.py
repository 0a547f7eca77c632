"""Await an author's code for so long and no longer, whatever it does with its cancellation.

``asyncio.timeout`` and ``asyncio.gather`` cancel what is late, and then wait until it gives in. Code that swallows
its cancellation never does. ``bounded`` gives it a grace to clean up, and then goes on without it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from envgym.env.clock import LoopClock, loop_clock
from envgym.env.culprit import settled
from envgym.env.eager import start
from envgym.env.works import Work, enlist, leave_behind, let_go

__all__ = ["Late", "bounded"]

T = TypeVar("T")

_GRACE_SECONDS = 5.0
"""Time for cancelled code to clean up."""
_ROUNDS = 4
"""Graces that code gets while further bounded code inside it comes to its own end."""
_LOG = logging.getLogger(__name__)


class Late(Exception):
    """Code that was not over at its limit.

    Args:
        where: the author's function that it was in, or a name.
        abandoned: true if it went on when it was cancelled.
    """

    def __init__(self, where: str, abandoned: bool) -> None:
        super().__init__(f"in {where}{', which went on when it was cancelled: abandoned' if abandoned else ''}")


async def bounded(code: Coroutine[Any, Any, T], seconds: float, name: str) -> T:
    """Await an author's coroutine in a task of its own, and return its result.

    When the time is up, or the caller is cancelled, the code is cancelled. If it goes on for longer than a grace,
    it is abandoned: counted in ``LoopClock.abandoned``, logged, and neither the caller nor the end of the event
    loop waits for it.

    Args:
        code: the coroutine; it runs in a copy of the caller's context.
        seconds: the limit, on the loop's clock: stalls do not count.
        name: what stands in messages where no author's function can be named.

    Raises:
        Late: it was not over in time.
    """
    clock = loop_clock()
    with clock.watching():
        work = Work(name, clock.now() + seconds)
        # What has no time left must not begin.
        begin = start if seconds > 0 else _schedule
        task = work.task = begin(settled(code), work.context())
        try:
            if task.done():
                await clock.breathe()
            else:
                await _waited_for(work, task, clock)
        finally:
            if task.done():
                work.close()
            if work.tasks:
                leave_behind(work)
    result: T
    result, error = task.result()
    if error is not None:
        raise error
    return result


def _schedule(code: Coroutine[Any, Any, T], context: contextvars.Context) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(code, context=context)


async def _waited_for(work: Work, task: asyncio.Task[Any], clock: LoopClock) -> None:
    """Wait until the work is over.

    Raises:
        Late: it was not over in time.
    """
    if work.around is not None:
        enlist(task, work)
        work.around.inside.add(work)
    try:
        try:
            over = await _over(task, work.end, clock)
        except asyncio.CancelledError:
            await _end(work, task, clock)
            raise
        if not over:
            where = work.where()
            raise Late(where, abandoned=not await _end(work, task, clock))
    finally:
        if work.around is not None:
            work.around.inside.discard(work)


async def _over(task: asyncio.Task[Any], end: float, clock: LoopClock) -> bool:
    """Wait until ``task`` is done, until ``end`` on the loop's clock at most; return whether it is."""
    if task.done() or clock.now() >= end:
        return task.done()
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiting.done():
            waiting.set_result(None)

    task.add_done_callback(wake)
    tick = clock.alarms.set(end, waiting)
    try:
        await waiting
    finally:
        task.remove_done_callback(wake)
        clock.alarms.call_off(tick, waiting)
    return task.done()


async def _end(work: Work, task: asyncio.Task[Any], clock: LoopClock) -> bool:
    """Cancel and give a grace; then abandon. Return whether the work ended of itself."""
    where = work.where()
    # A second cancellation would interrupt the cleaning up after the first.
    if not task.cancelling():
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    for _ in range(_ROUNDS):
        try:
            if await _over(task, clock.now() + _GRACE_SECONDS, clock) or not work.inside:
                break
        except asyncio.CancelledError as error:
            cancelled = error
    over = task.done()
    if not over:
        clock.abandoned[where] += 1
        _LOG.warning("abandoned, for it went on after it was cancelled: %s", where)
        let_go(work)
    if cancelled is not None:
        raise cancelled
    return over
