"""What becomes of code that blocks the event loop for long.

It is named on the log within seconds. Code of an environment or a policy that goes on past its own limit is
interrupted: ``EventLoopBlocked`` is raised in it, which ends computations in Python at once, and calls of C when
they return. Where even that does not help, the process ends with a message, for nothing else in it could go on.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

from envgym.env.works import Work, owner
from envgym.errors import EventLoopBlocked
from envgym.terminal import printable

__all__ = ["Stall", "raise_in", "stack"]

_WARN_SECONDS = 2.0
_LEAST_SECONDS = 5.0
"""Time that code may block the loop even if its own limit is shorter."""
_MOST_SECONDS = 60.0
"""Time that code may block the loop even if its own limit is longer."""
_AGAIN_SECONDS = 1.0
"""Time until code that swallows the interruption is interrupted again."""
_EXIT_SECONDS = 300.0
"""Time from the first interruption to the end of the process."""
_LOOK_SECONDS = 0.5
"""Most time between two looks that counts."""
_DEBUGGERS = {"bdb", "pdb", "pydevd", "_pydevd_bundle.pydevd_frame"}
_LOG = logging.getLogger(__name__)


class _Clock(Protocol):
    def now(self) -> float: ...


class Stall:
    """Follows the stalls of one loop, from the thread that watches it.

    Of the time between two looks only so much counts: a process that was stopped, and goes on, blocked nothing
    meanwhile.

    Args:
        clock: the loop's clock.
        loop: the loop.
        thread: identifier of the loop's thread.
    """

    def __init__(self, clock: _Clock, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        self._clock = clock
        self._loop = loop
        self._thread = thread
        self._step: FrameType | None = None
        self._seconds = 0.0
        self._warned = False
        self._interrupted: float | None = None
        self._next = 0.0

    def over(self) -> None:
        """Note that the loop goes on."""
        self._step = None

    def seen(self, frame: FrameType, who: str, seconds: float) -> None:
        """Note that the loop is still blocked.

        Args:
            frame: what its thread is doing.
            who: the author's function in it, or ``""``.
            seconds: time since the last look.
        """
        step = _step(frame)
        if step is not self._step:
            self._step, self._seconds, self._warned, self._interrupted = step, 0.0, False, None
        self._seconds += min(seconds, _LOOK_SECONDS)
        if not who:
            return
        if self._seconds >= _WARN_SECONDS and not self._warned:
            self._warned = True
            _LOG.warning("the event loop has been blocked for %.0f s, and every episode with it: in %s",
                         self._seconds, who)  # fmt: skip
        work = self._work()
        if work is None or self._seconds < self._limit(work) or _is_debugged(frame):
            return
        if self._interrupted is None:
            self._interrupted = self._next = self._seconds
            _LOG.error("interrupted after it blocked the event loop for %.0f s: %s", self._seconds, who)
        if self._seconds >= self._interrupted + _EXIT_SECONDS:
            self._give_up(who)
        elif self._seconds >= self._next:
            self._next = self._seconds + _AGAIN_SECONDS
            self._interrupt(frame, who)

    def _work(self) -> Work | None:
        task = asyncio.current_task(self._loop)
        return owner(task) if task is not None else None

    def _limit(self, work: Work) -> float:
        # The clock leaves out the stall under way: this is what was left when it began.
        left = min(around.end for around in work.chain()) - self._clock.now()
        return min(max(left, _LEAST_SECONDS), _MOST_SECONDS)

    def _interrupt(self, frame: FrameType, who: str) -> None:
        text = f"the event loop was blocked for {self._seconds:.0f} s, in {who}; await instead, or use a thread"
        # It is raised by its class, without arguments.
        message = {"__init__": lambda self: Exception.__init__(self, text)}
        raise_in(self._thread, type(EventLoopBlocked.__name__, (EventLoopBlocked,), message))
        # The code may have come to its end in between: the error must not hit the loop itself.
        now = sys._current_frames().get(self._thread)
        if now is None or _step(now) is not self._step:
            raise_in(self._thread, None)

    def _give_up(self, who: str) -> None:
        text = f"the event loop has been blocked for {self._seconds:.0f} s and cannot be interrupted, in {who}"
        os.write(2, printable(f"error: {text}; the process ends\n").encode())
        os._exit(1)


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise ``error`` in a thread as soon as it runs Python code; ``None`` takes back what has not been raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


def stack(frame: FrameType) -> Iterator[FrameType]:
    """Yield the frames of one step of the loop, from the innermost outwards."""
    inner: FrameType | None = frame
    # What lies around the loop's own frame is whoever started the loop.
    while inner is not None and inner.f_code.co_name != "_run_once":
        yield inner
        inner = inner.f_back


def _step(frame: FrameType) -> FrameType | None:
    """Return the outermost frame of the loop's step, which is another one in the next step."""
    return next(reversed(list(stack(frame))), None)


def _is_debugged(frame: FrameType) -> bool:
    return any(f.f_globals.get("__name__") in _DEBUGGERS for f in stack(frame))
