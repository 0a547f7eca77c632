"""Operations of the runner on the program's processes: read, protect, count, collect, clear."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

__all__ = ["Stream", "counter", "hide", "kill_everything", "output_pipe", "reap", "traces"]


class Stream:
    """Keeps the head and the tail of one output stream in a buffer of fixed size; the tail is a ring."""

    def __init__(self, descriptor: int, cap: int) -> None:
        self.descriptor = descriptor
        self.cap = cap
        self.head = cap - cap // 2
        self.total = 0
        self.memory = bytearray(cap)
        self.view = memoryview(self.memory)

    def absorb(self) -> bool:
        """Take a piece of what the pipe holds; return False if it is empty or at its end."""
        if self.total < self.head:
            room = self.view[self.total : self.head]
        else:
            tail = self.cap - self.head
            at = self.head + (self.total - self.head) % tail if tail else 0
            room = self.view[at:] if tail else memoryview(bytearray(1))
        try:
            count = os.readv(self.descriptor, [room[:65536]])
        except BlockingIOError:
            return False
        self.total += count
        return count > 0

    def drain(self, most: int) -> None:
        """Take all that the pipe holds, until the stream exceeds ``most`` bytes in total."""
        while self.total <= most and self.absorb():
            continue

    def parts(self) -> list[memoryview]:
        """Return the kept bytes in order: head, then the tail unrolled."""
        if self.total <= self.cap:
            return [self.view[: self.total]]
        tail = self.cap - self.head
        at = self.head + (self.total - self.head) % tail if tail else self.head
        return [self.view[: self.head], self.view[at:], self.view[self.head : at]]

    def forget(self) -> None:
        """Overwrite the buffer, because the next execution is forked from this memory."""
        used = min(self.total, self.cap)
        self.view[:used] = bytes(used)


def output_pipe() -> tuple[int, int]:
    """Make a pipe whose writing end a program of another user can open by name too, as ``/dev/stdout``."""
    reading, writing = os.pipe()
    os.fchmod(writing, 0o622)
    return reading, writing


def hide() -> None:
    """Keep processes of the same user from tracing this one or opening its files; process 1 takes no signals.

    Raises:
        OSError: the kernel refused.
    """
    import ctypes  # here, because programs forked in a container should not find it loaded

    if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0):  # PR_SET_DUMPABLE
        raise OSError("prctl refused")


def counter(path: str, field: str) -> int:
    """Return one number from a control group's file of counters; 0 if there is no such file."""
    with contextlib.suppress(FileNotFoundError), open(path) as lines:
        for line in lines:
            name, _, value = line.partition(" ")
            if name == field:
                return int(value)
    return 0


def kill_everything() -> None:
    """Kill every process of this namespace except the init and the runner, in one call that no fork can outrun."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def reap() -> None:
    """Collect every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def traces(config: dict[str, Any]) -> list[str]:
    """Return what an episode left behind that the next one could find: files, shared memory, sockets."""
    found = [name for folder in config["folders"] for name in os.listdir(folder)]
    for table in config["tables"]:
        with contextlib.suppress(FileNotFoundError), open(table) as lines:
            found += list(lines)[1:]
    return found
