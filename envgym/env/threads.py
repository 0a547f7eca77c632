"""Threads for the blocking calls of authors' code, which the end of the loop does not wait for without end."""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from envgym.env.works import current_work

__all__ = ["AuthorThreads", "install"]

P = ParamSpec("P")
T = TypeVar("T")

_GRACE_SECONDS = 10.0
"""Time for calls under way when the loop ends."""
_LONG_SECONDS = 30.0
"""Duration from which a call no longer counts towards the number of threads, so that stuck calls stop nobody."""
_LOG = logging.getLogger(__name__)


class AuthorThreads(ThreadPoolExecutor):
    """The default executor of a loop: ``asyncio.to_thread`` in authors' code gets daemon threads.

    Other code has the threads of the base class, which the end of the loop and of the interpreter waits for.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="asyncio")
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._daemons: list[threading.Thread] = []
        self._begun: dict[threading.Thread, float] = {}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a thread."""
        if current_work() is None:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        self._calls.put((future, functools.partial(fn, *args, **kwargs)))
        # Copied at once: the threads change it.
        begun = list(self._begun.values())
        idle = len(self._daemons) - len(begun)
        busy = sum(time.monotonic() - since < _LONG_SECONDS for since in begun)
        if self._calls.qsize() > idle and idle + busy < self._max_workers:
            thread = threading.Thread(target=self._work, daemon=True, name="author-call")
            self._daemons.append(thread)
            thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for an author's only for a grace."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        daemons, self._daemons = self._daemons, []
        for _ in daemons:
            self._calls.put(None)
        end = time.monotonic() + (_GRACE_SECONDS if wait else 0.0)
        for thread in daemons:
            thread.join(max(0.0, end - time.monotonic()))
        if wait and (left := sum(thread.is_alive() for thread in daemons)):
            _LOG.warning("%d calls in threads go on, and are not waited for", left)

    def _work(self) -> None:
        thread = threading.current_thread()
        while (call := self._calls.get()) is not None:
            future, function = call
            if not future.set_running_or_notify_cancel():
                continue
            self._begun[thread] = time.monotonic()
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - carried over to who awaits it
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                del self._begun[thread]
            del call, future, function


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Make ``AuthorThreads`` the default executor of a loop that has none yet."""
    if getattr(loop, "_default_executor", None) is None:
        loop.set_default_executor(AuthorThreads())
