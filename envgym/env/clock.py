"""A clock of the event loop that stands still while the loop is blocked.

All episodes of a process share one event loop. While one environment blocks it, with ``time.sleep`` or a long
computation outside a thread, nobody else's episode moves, yet wall-clock time runs. Limits measured on this clock
give that time back, and the clock remembers who took it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections import Counter
from typing import Self

from envgym.env.alarms import Alarms
from envgym.env.culprit import culprit
from envgym.env.stall import Stall, stack
from envgym.env.threads import install
from envgym.env.works import follow_tasks

__all__ = ["LoopClock", "loop_clock"]

_BEAT_SECONDS = 0.05
_STALL_SECONDS = 0.1
"""Least lateness of a beat that counts as a stall; less is the ordinary jitter of a busy machine."""
_BREATH_SECONDS = 0.005
"""Longest time for which code that never waits keeps the loop, give or take one call."""
_LINGER_SECONDS = 1.0
"""Time for which the thread goes on after nobody watches any more: to begin one for each call takes longer."""
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
        self.alarms = Alarms(self.now)
        self._watchers = 0
        self._beaten = 0.0
        self._yielded = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()
        self._looked_at = 0
        self._seen: Counter[str] = Counter()

    def now(self) -> float:
        """Return ``time.monotonic`` without the stalls, in seconds; one that is under way is left out, too."""
        now = time.monotonic()
        late = now - self._beaten - _BEAT_SECONDS if self._watchers else 0.0
        return now - self.stalled_seconds - (late if late >= _STALL_SECONDS else 0.0)

    async def breathe(self) -> None:
        """Let the loop go on if nobody has for a while: code that never waits would keep it for itself."""
        if time.monotonic() - self._yielded >= _BREATH_SECONDS:
            await asyncio.sleep(0)
            self._yielded = time.monotonic()

    def watching(self) -> Self:
        """Measure stalls while entered, which several may do at once."""
        return self

    def __enter__(self) -> None:
        if not self._watchers:
            self._beaten = time.monotonic()
        self._watchers += 1
        if self._watchers == 1:
            self._wake()

    def __exit__(self, *_: object) -> None:
        if self._watchers == 1:
            self._count()
        self._watchers -= 1

    def _wake(self) -> None:
        """Have the timer beat and the thread look; both linger when nobody watches any more."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_BEAT_SECONDS, self._beat, loop)
        here = threading.get_ident()
        with self._lock:
            if self._looked_at != here:
                self._looked_at = here
                arguments = (asyncio.get_running_loop(), here)
                threading.Thread(target=self._look, args=arguments, daemon=True, name="loop-clock").start()

    def _late(self) -> float:
        return time.monotonic() - self._beaten - _BEAT_SECONDS if self._watchers else 0.0

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._watchers:
            self._count()
            self._timer = loop.call_later(_BEAT_SECONDS, self._beat, loop)

    def _count(self) -> None:
        """Count a late beat as a stall, and begin to wait for the next one."""
        late = self._late()
        if late >= _STALL_SECONDS:
            who = self._seen.most_common(1)[0][0] if self._seen else _NOBODY
            self.culprits[who] = self.culprits.get(who, 0.0) + late
            self.stalled_seconds += late
        if self._seen:
            self._seen = Counter()
        self._beaten = time.monotonic()

    def _look(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        stall = Stall(self, loop, thread)
        looked = used = time.monotonic()
        while self._looked_at == thread:
            time.sleep(_BEAT_SECONDS)
            earlier, looked = looked, time.monotonic()
            used = looked if self._watchers else used
            frame = sys._current_frames().get(thread) if self._late() >= _STALL_SECONDS else None
            if frame is not None:
                who = culprit(stack(frame))
                self._seen[who or _NOBODY] += 1
                stall.seen(frame, who, looked - earlier)
            else:
                stall.over()
            del frame  # it would keep alive what its code holds
            if looked - used >= _LINGER_SECONDS:
                with self._lock:
                    if not self._watchers and self._looked_at == thread:
                        self._looked_at = 0


_clocks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock] = weakref.WeakKeyDictionary()


def loop_clock() -> LoopClock:
    """Return the clock of the running event loop."""
    loop = asyncio.get_running_loop()
    clock = _clocks.get(loop)
    if clock is None:
        install(loop)
        follow_tasks(loop)
        clock = _clocks[loop] = LoopClock()
    return clock
