"""Drive asynchronous code from synchronous callers, inside or outside a running event loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_sync"]

T = TypeVar("T")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop in a daemon thread serves every synchronous caller of the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="envgym-sync").start()
    return loop


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end and return its result. Interrupting the caller cancels the work."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
