"""The process's memory between micro-batches."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["release_memory"]


def release_memory() -> None:
    """Give freed memory back to the system, where the C library can.

    What layers freed lies in holes between what is still used: without this a process that trains SmolLM2-135M
    grows from 4.2 to 4.9 GB. To get the memory again takes time.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; ``None`` with another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
