"""Run a command's asynchronous work so that Ctrl-C ends it at once, in few words, whatever else is going on."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TypeVar

__all__ = ["STOPPED", "run"]

T = TypeVar("T")

STOPPED = 130
"""Exit code of a command that was stopped."""
_GRACE_SECONDS = 3.0
"""Time to close sandboxes and connections. A thread in the middle of a computation may take longer and is not
waited for: nothing that was saved depends on it."""
_TELLING_SECONDS = 1.0
_SHOW_CURSOR = "\x1b[?25h"


def run(work: Coroutine[Any, Any, T], say: Callable[[str], None] | None = None, *, advice: str = "") -> T:
    """Run ``work`` as ``asyncio.run`` does; end the process with exit code 130 where Ctrl-C or SIGTERM stops it.

    The first signal cancels the work, which may take a few seconds to clean up; the second does not wait.

    Args:
        work: the command's work.
        say: prints a line; to standard error by default.
        advice: how to go on with what was stopped.
    """
    interruption = _Interruption(say or _to_stderr, advice)

    async def watched() -> T:
        with interruption:
            return await work

    try:
        return asyncio.run(watched())
    except BaseException:
        # What else went wrong came of the stop.
        if interruption.stopped:
            interruption.told.wait(_TELLING_SECONDS)
            # The interpreter drops its handlers when it ends, and a signal would then decide the exit code.
            atexit.register(_ignore_signals)
            sys.exit(STOPPED)
        raise


class _Interruption:
    """Listens for signals while entered, within a task; in threads other than the main one it hears nothing."""

    def __init__(self, say: Callable[[str], None], advice: str) -> None:
        self.stopped = False
        self.told = threading.Event()
        """Set once the user was told."""
        self._say = say
        self._advice = advice
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a stop, the event loop has yet to close: a second signal must still be heard.
        if not self.stopped:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            _leave()
        self.stopped = True
        # The tasks that are cancelled fail in many ways, none of which is news.
        self._loop.set_exception_handler(lambda *_: None)
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        # Threads of their own: the signal may have come in the middle of another line, which a second one in this
        # thread would spoil, and this thread may be busy for long.
        _thread.start_new_thread(self._tell, ())
        _thread.start_new_thread(_leave_later, ())

    def _tell(self) -> None:
        try:
            self._say(f"stopped{f'; {self._advice}' if self._advice else ''}")
        finally:
            self.told.set()


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _leave_later() -> None:
    time.sleep(_GRACE_SECONDS)
    _leave()


def _leave() -> NoReturn:
    """End the process now, in the middle of whatever it does, and leave the terminal as it was."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(STOPPED)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
