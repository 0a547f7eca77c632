"""Look for garbage less often while many episodes are in flight.

Python's collector goes through the youngest objects whenever 700 more have come up than were freed. With thousands
of episodes in flight the young ones are the episodes themselves: nothing is found, and each look takes longer than
the last, for old objects that are freed count against new ones. With 20,000 in flight it took a quarter of the
processor's time, and up to 90 ms at once. Here as many may come up as the episodes in flight hold themselves:
garbage at most doubles the memory that they take.
"""

from __future__ import annotations

import gc

__all__ = ["PatientGarbageCollector"]

_OBJECTS = 150
"""Objects that the collector follows in an episode that waits for a tool: 120, and a few for its own."""


class PatientGarbageCollector:
    """While entered, once for each episode in flight, raise the first threshold of Python's garbage collector.

    A higher one, a collector that is switched off, and what is set meanwhile are left as they are.
    """

    def __init__(self) -> None:
        self._entered = self._room = 0
        self._before = self._set = gc.get_threshold()

    def __enter__(self) -> None:
        if not self._entered:
            self._before = self._set = gc.get_threshold()
        self._entered += 1
        if self._entered > self._room:
            self._room = 2 * self._entered
            if self._before[0] and gc.get_threshold() == self._set:
                gc.set_threshold(max(self._before[0], _OBJECTS * self._room), *self._before[1:])
                self._set = gc.get_threshold()

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._room = 0
            if gc.get_threshold() == self._set:
                gc.set_threshold(*self._before)
