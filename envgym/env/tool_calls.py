"""Run a plain function of a tool in a thread of its own.

The thread is told to end after a timeout: ``SystemExit`` is raised in it as soon as it runs Python code. A call of
C runs on, its result discarded; the process ends nonetheless.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any

from envgym.env.clock import loop_clock
from envgym.env.culprit import culprit
from envgym.env.stall import raise_in, stack

__all__ = ["in_a_thread"]


async def in_a_thread(function: Callable[[], Any], name: str) -> Any:
    """Return the result of ``function``, run in a daemon thread of that name, which cannot delay the exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_result((result, error))

    def work() -> None:
        result: Any = None
        raised: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - carried over to the awaiting task
            raised = error
        with contextlib.suppress(RuntimeError):  # the loop may be gone by the time a slow call ends
            loop.call_soon_threadsafe(deliver, result, raised)

    thread = threading.Thread(target=work, daemon=True, name=name)
    thread.start()
    try:
        result, error = await future
    except asyncio.CancelledError:
        _stop(thread)
        raise
    if error is not None:
        raise error
    return result


def _stop(thread: threading.Thread) -> None:
    """Tell a thread to end, which it does as soon as it runs Python code; until then it goes on by itself."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is not None:
        loop_clock().abandoned[culprit(stack(frame)) or thread.name] += 1
        raise_in(thread.ident or 0, SystemExit)
