"""The wire format between the host and the runner: two fixed structs, each followed by raw bytes."""

from __future__ import annotations

import struct

__all__ = [
    "CELL",
    "DISK",
    "ENTRY",
    "EXEC",
    "FLOOD",
    "GET",
    "MAX_BODY_BYTES",
    "OOM",
    "OPEN",
    "PIDS",
    "PUT",
    "PYTHON",
    "REPLY",
    "REQUEST",
    "SETTLE_SECONDS",
    "TIMED_OUT",
    "UNCLEAN",
    "WIPE",
]

REQUEST = struct.Struct("<BdQQQ")
"""Operation, deadline in seconds, kept bytes per output stream, bytes of body, bytes of standard input.

The body and the standard input follow.
"""
REPLY = struct.Struct("<iIdQQ")
"""Wait status of the main process, flags, seconds of run time, bytes written to each stream.

The kept bytes of each stream follow.
"""

PYTHON, EXEC, PUT, GET, OPEN, WIPE, CELL = 1, 2, 3, 4, 5, 6, 7
"""Operations: run a program, run a command, write files, read one, begin an episode, end it, run a cell."""
TIMED_OUT, OOM, PIDS, DISK, UNCLEAN = 1, 2, 4, 8, 16
"""Flags: deadline passed, out-of-memory kill, fork refused, disk full, remains that could not be removed."""

ENTRY = struct.Struct("<HQ")
"""One file of a ``PUT``: bytes of its name, bytes of its content; both follow."""
MAX_BODY_BYTES = 32 * 2**20
"""Maximum number of bytes of body and standard input together."""
FLOOD = 8
"""Multiple of its cap that a program may write to one stream before it is ended."""
SETTLE_SECONDS = 2.0
"""Seconds that killed processes may take to disappear before the sandbox counts as unclean."""
