"""Drive asynchronous code from synchronous callers, inside or outside a running event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from envgym.env.culprit import settled

__all__ = ["run_sync"]

T = TypeVar("T")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop, in a daemon thread, that serves every synchronous caller of the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="envgym-sync").start()
    return loop


if hasattr(os, "register_at_fork"):  # a forked child inherits the loop but not the thread that runs it
    os.register_at_fork(after_in_child=_loop.cache_clear)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end and return its result. Interrupting the caller cancels the work.

    Raises:
        RuntimeError: called from code that ``run_sync`` itself runs, which would deadlock.
    """
    if _running() is _loop():
        work.close()
        raise RuntimeError("asynchronous code that a synchronous call drives must await areset, astep and aclose")
    future = asyncio.run_coroutine_threadsafe(settled(work), _loop())
    try:
        result, error = future.result()
    except BaseException:
        future.cancel()
        raise
    if error is not None:
        raise error
    return result
