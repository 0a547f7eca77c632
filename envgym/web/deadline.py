"""The time that is left, known to whoever waits on an episode's behalf, however deep in the calls."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar

__all__ = ["bounded_by", "seconds_left"]


def _endless() -> float:
    return math.inf


_left: ContextVar[Callable[[], float]] = ContextVar("seconds_left", default=_endless)


@contextlib.contextmanager
def bounded_by(left: Callable[[], float]) -> Iterator[None]:
    """Bound what runs inside, and the tasks that it starts, by the seconds that ``left`` returns."""
    token = _left.set(left)
    try:
        yield
    finally:
        _left.reset(token)


def seconds_left() -> float:
    """Return the seconds until the deadline, at least 0; infinite without one."""
    return max(0.0, _left.get()())
