"""Begin a coroutine in a task of its own, and at once: what never has to wait is over when the caller goes on.

A task that ``asyncio`` begins takes a pass of its event loop, its end another, and a limit on it a timer. Most of
an author's code returns without waiting for anything. It still runs in its own task and context here, so that
whoever asks for the current task, cancels it or follows it up sees what it would see else.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["start"]

T = TypeVar("T")


def start(code: Coroutine[Any, Any, T], context: contextvars.Context) -> asyncio.Task[T]:
    """Return a task that has run ``code`` in ``context`` up to the first point at which it waits."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(code, loop=loop, context=context, eager_start=True)
    return _start(loop, code, context)


def _start(
    loop: asyncio.AbstractEventLoop, code: Coroutine[Any, Any, T], context: contextvars.Context
) -> asyncio.Task[T]:
    """Do what ``eager_start`` of Python 3.12 does: take the task's first step inside the caller's."""
    steps: list[Callable[[], Any]] = []

    def keep(step: Callable[[], Any], *, context: contextvars.Context | None = None) -> None:
        steps.append(step)

    try:
        loop.call_soon = keep  # type: ignore[method-assign, assignment]
    except AttributeError:  # a loop written in C
        return loop.create_task(code, context=context)
    try:
        task = asyncio.Task(code, loop=loop, context=context)
    finally:
        del loop.call_soon
    caller = asyncio.current_task(loop)
    if caller is not None:
        asyncio.tasks._leave_task(loop, caller)
    try:
        context.run(steps[0])
    except BaseException:  # a real exit, which the task keeps as well
        task.exception()
        raise
    finally:
        if caller is not None:
            asyncio.tasks._enter_task(loop, caller)
    return task
