"""A clock of the event loop that stands still while the loop is blocked.

All episodes of a process share one event loop. While one environment blocks it, with ``time.sleep`` or a long
computation outside a thread, nobody else's episode moves, yet wall-clock time runs. Limits measured on this clock
give that time back, and the clock remembers who took it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator

from envgym.env.culprit import culprit
from envgym.env.stall import Stall, stack
from envgym.env.threads import install

__all__ = ["LoopClock", "loop_clock"]

_BEAT_SECONDS = 0.05
_STALL_SECONDS = 0.1
"""Least lateness of a beat that counts as a stall; less is the ordinary jitter of a busy machine."""
_NOBODY = "no code of an environment (the machine was busy or asleep, or a call kept every thread waiting)"


class LoopClock:
    """Measures the stalls of one event loop while somebody watches; get it from ``loop_clock``.

    A timer beats in the loop. Whenever a beat is late, a thread looks at what the loop is doing; ``Stall`` says
    what becomes of code that blocks the loop for long.
    """

    def __init__(self) -> None:
        self.stalled_seconds = 0.0
        """Seconds for which the loop was blocked, up to the last beat."""
        self.culprits: dict[str, float] = {}
        """Seconds by what blocked the loop: a function with its file and line."""
        self.abandoned: Counter[str] = Counter()
        """Number of times by what was abandoned: a function that went on although it was cancelled."""
        self._watchers = 0
        self._beaten = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self._seen: Counter[str] = Counter()

    def now(self) -> float:
        """Return ``time.monotonic`` without the stalls, in seconds; one that is under way is left out, too."""
        late = self._late()
        return time.monotonic() - self.stalled_seconds - (late if late >= _STALL_SECONDS else 0.0)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measure stalls while entered, which several may do at once."""
        if not self._watchers:
            self._beaten, self._ended = time.monotonic(), threading.Event()
            loop = asyncio.get_running_loop()
            self._beat(loop)
            arguments = (loop, threading.get_ident(), self._ended)
            threading.Thread(target=self._look, args=arguments, daemon=True, name="loop-clock").start()
        self._watchers += 1
        try:
            yield
        finally:
            if self._watchers == 1:
                self._count()
                self._ended.set()
                if self._timer is not None:
                    self._timer.cancel()
            self._watchers -= 1

    def _late(self) -> float:
        return time.monotonic() - self._beaten - _BEAT_SECONDS if self._watchers else 0.0

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._count()
        self._timer = loop.call_later(_BEAT_SECONDS, self._beat, loop)

    def _count(self) -> None:
        """Count a late beat as a stall, and begin to wait for the next one."""
        late = self._late()
        seen, self._seen = self._seen, Counter()
        if late >= _STALL_SECONDS:
            who = seen.most_common(1)[0][0] if seen else _NOBODY
            self.culprits[who] = self.culprits.get(who, 0.0) + late
            self.stalled_seconds += late
        self._beaten = time.monotonic()

    def _look(self, loop: asyncio.AbstractEventLoop, thread: int, ended: threading.Event) -> None:
        stall = Stall(self, loop, thread)
        looked = time.monotonic()
        while not ended.wait(_BEAT_SECONDS):
            earlier, looked = looked, time.monotonic()
            frame = sys._current_frames().get(thread) if self._late() >= _STALL_SECONDS else None
            if frame is not None:
                who = culprit(stack(frame))
                self._seen[who or _NOBODY] += 1
                stall.seen(frame, who, looked - earlier)
            else:
                stall.over()
            del frame  # it would keep alive what its code holds


_clocks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock] = weakref.WeakKeyDictionary()


def loop_clock() -> LoopClock:
    """Return the clock of the running event loop."""
    loop = asyncio.get_running_loop()
    clock = _clocks.get(loop)
    if clock is None:
        install(loop)
        clock = _clocks[loop] = LoopClock()
    return clock
