"""Identify the owner of a sandbox so that its death can be told from the identity alone."""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["is_dead", "this_process"]


@functools.cache
def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _start(pid: int) -> str | None:
    try:
        # The name in the second field may hold spaces and parentheses, so count to field 22 from its end.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def this_process() -> str:
    """Return this process as ``boot id/process namespace/pid/start time``."""
    return f"{_place()}/{os.getpid()}/{_start(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Return whether the process is known to be gone; false for one of another boot, machine or namespace."""
    place, _, process = owner.rpartition("/")[0].rpartition("/")
    start = owner.rpartition("/")[2]
    return place == _place() and process.isdigit() and _start(int(process)) != start
