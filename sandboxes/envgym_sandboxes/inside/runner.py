"""The runner: forks once per execution, watches, ends everything, and reports how it went.

It is sent as source text on its own command line, so it needs no mount and no particular image. The host
sends one request, it sends one reply; it never speaks unasked.

Requests carry programs, arguments, file names and inputs, but the runner never holds those: it splices them
from the channel into memory files that only the forked child reads. So nothing of one execution is left in
the memory that the next one is forked from, and the runner parses nothing hostile. The child drops to the
program's user and closes everything but its three streams. It is killed together with all that it started as
soon as its main process ends or the deadline passes.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import time
from typing import Any

from envgym_sandboxes.inside.cells import Session, open_pipes, run_cells
from envgym_sandboxes.inside.file_transfer import answer, empty, get, put
from envgym_sandboxes.inside.program import enter, run_argv, run_python, take
from envgym_sandboxes.inside.watch import Stream, counter, hide, kill_everything, reap, traces
from envgym_sandboxes.inside.wire import (
    CELL,
    DISK,
    EXEC,
    FLOOD,
    GET,
    OOM,
    OPEN,
    PIDS,
    PUT,
    PYTHON,
    REPLY,
    REQUEST,
    SETTLE_SECONDS,
    TIMED_OUT,
    UNCLEAN,
    WIPE,
)

__all__ = ["Runner", "main"]

_IDLE_SECONDS = 3600.0
"""Life between two episodes, without an owner's request."""


class Runner:
    """Serves requests; returns only in a forked child, with what that child has to do."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.source = os.dup(0)
        self.sink = os.dup(1)
        os.set_inheritable(self.source, False)
        os.set_inheritable(self.sink, False)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        if config["uid"] is None:
            hide()
        else:
            for folder in config["folders"]:
                # Sticky and root's own: the program can fill it, but leave no mark on the folder itself.
                os.chmod(folder, 0o1777)
        self.between = os.pipe()
        self.session: Session | None = None
        self.session_child = 0
        self.expires = time.monotonic() + _IDLE_SECONDS
        gc.collect()
        gc.freeze()

    def serve(self) -> tuple[int, int]:
        """Answer requests until the channel ends or time is up, which ends the process."""
        while True:
            operation, wall, cap, body_size, stdin_size = REQUEST.unpack(self.receive(REQUEST.size))
            body = self.keep("body", body_size)
            stdin = self.keep("stdin", stdin_size)
            if operation == OPEN:
                self.expires = time.monotonic() + wall
                os.write(self.sink, REPLY.pack(0, 0, 0.0, 0, 0))
            elif operation == CELL:
                if (child := self.cell(wall, cap, body, body_size)) is not None:
                    return child
            elif operation == WIPE:
                self.end_session()
                if self.wipe() is not None:
                    return WIPE, -1
            elif (child := self.execute(operation, wall, cap, body, stdin)) is not None:
                return child
            os.close(body)
            os.close(stdin)

    def receive(self, size: int) -> bytes:
        """Read exactly ``size`` bytes of the channel; the end of the channel or of the time ends the process."""
        data = b""
        while len(data) < size:
            ready = select.select([self.source], [], [], max(0.0, self.expires - time.monotonic()))[0]
            part = os.read(self.source, size - len(data)) if ready else b""
            if not part:
                os._exit(0)
            data += part
        return data

    def keep(self, name: str, size: int) -> int:
        """Move ``size`` bytes from the channel into a memory file without holding them here."""
        memory = os.memfd_create(name, os.MFD_CLOEXEC)
        left = size
        while left:
            moved = os.splice(self.source, self.between[1], min(left, 65536))
            if not moved:
                os._exit(0)
            left -= moved
            while moved:
                moved -= os.splice(self.between[0], memory, moved)
        os.lseek(memory, 0, os.SEEK_SET)
        return memory

    def execute(self, operation: int, wall: float, cap: int, body: int, stdin: int) -> tuple[int, int] | None:
        """Fork the child and watch it. None in the runner; in the child, what to do.

        A program or a command ends the session; files may come and go while there is one.
        """
        if operation in (PYTHON, EXEC):
            self.end_session()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        before = self.counters()
        started = time.monotonic()
        try:
            child = os.fork()
        except OSError:
            # What the session started has taken every place there is for a process.
            self.end_session()
            child = os.fork()
        if not child:
            enter(self.config, [stdin, out_write, err_write, body])
            return operation, 3
        os.close(out_write)
        os.close(err_write)
        streams = [Stream(out_read, cap), Stream(err_read, cap)]
        end = min(started + wall, self.expires)
        timed_out = self.watch(child, streams, end)
        seconds = time.monotonic() - started
        full = self.disk_is_full()
        if self.session is None:
            kill_everything()
        elif timed_out:
            os.kill(child, signal.SIGKILL)
        code = os.waitpid(child, 0)[1]
        for stream in streams:
            stream.drain(2 * FLOOD * cap)
        flags = self.flags(before, timed_out=timed_out, full=full)
        if self.session is None and not self.alone():
            flags |= UNCLEAN
        self.reply(code, flags, seconds, streams)
        for stream in streams:
            os.close(stream.descriptor)
        return None

    def cell(self, wall: float, cap: int, body: int, size: int) -> tuple[int, int] | None:
        """Run a cell in the session, which the first one starts. None in the runner; in the child, what to do."""
        if self.session is None:
            ours, theirs = open_pipes()
            self.session_child = os.fork()
            if not self.session_child:
                null = os.open(os.devnull, os.O_RDWR)
                enter(self.config, [null, *theirs])
                return CELL, -1
            for descriptor in theirs:
                os.close(descriptor)
            self.session = Session(os.pidfd_open(self.session_child), *ours)
        before, started = self.counters(), time.monotonic()
        end = min(started + wall, self.expires)
        state, streams = self.session.run(body, size, cap, end, self.source)
        if state == "abandoned":
            os._exit(0)
        seconds = time.monotonic() - started
        flags = self.flags(before, timed_out=state == "late", full=self.disk_is_full())
        code, clean = (256 * (state == "raised"), True) if state in ("done", "raised") else self.end_session()
        self.reply(code, flags | (0 if clean else UNCLEAN), seconds, streams)
        return None

    def end_session(self) -> tuple[int, bool]:
        """End the session, if there is one; its wait status, and whether nothing is left of it."""
        if self.session is None:
            return 0, True
        kill_everything()
        code = os.waitpid(self.session_child, 0)[1]
        self.session.close()
        self.session = None
        return code, self.alone()

    def flags(self, before: list[int], *, timed_out: bool, full: bool) -> int:
        """Return flags for what the kernel did during the execution."""
        after = self.counters()
        found = (TIMED_OUT if timed_out else 0) | (DISK if full else 0)
        found |= OOM if after[0] > before[0] else 0
        return found | (PIDS if after[1] > before[1] else 0)

    def watch(self, child: int, streams: list[Stream], end: float) -> bool:
        """Drain the streams until the main process ends; True if the deadline came first."""
        poller = select.poll()
        by_descriptor = {stream.descriptor: stream for stream in streams}
        for descriptor in by_descriptor:
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.POLLIN)
        handle = os.pidfd_open(child)
        poller.register(handle, select.POLLIN)
        poller.register(self.source, 0)
        try:
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    return True
                for descriptor, _ in poller.poll(left * 1000 + 1):
                    if descriptor == handle:
                        return False
                    if descriptor == self.source:
                        os._exit(0)
                    stream = by_descriptor[descriptor]
                    if not stream.absorb():
                        poller.unregister(descriptor)
                    if stream.total > FLOOD * stream.cap:
                        return False
        finally:
            os.close(handle)

    def reply(self, code: int, flags: int, seconds: float, streams: list[Stream]) -> None:
        """Send how an execution went and what is kept of its output, then forget the output.

        Args:
            code: wait status of the main process.
            flags: what the kernel did, and whether something is left.
            seconds: run time.
            streams: standard output and standard error.
        """
        totals = [stream.total for stream in streams]
        pieces = [memoryview(REPLY.pack(code, flags, seconds, *totals))]
        for stream in streams:
            pieces += stream.parts()
        for piece in pieces:
            while piece:
                piece = piece[os.write(self.sink, piece) :]
        for stream in streams:
            stream.forget()

    def counters(self) -> list[int]:
        """Return the kernel's counts of out-of-memory kills and refused forks; the program cannot write them."""
        places = self.config["counters"]
        return [sum(counter(*place) for place in places[kind]) for kind in ("oom", "pids")]

    def disk_is_full(self) -> bool:
        """Return whether a writable folder of limited size has no room or no place for another file."""
        for folder in self.config["folders"]:
            room = os.statvfs(folder)
            if room.f_blocks and (room.f_bavail == 0 or room.f_favail == 0):
                return True
        return False

    def alone(self) -> bool:
        """Wait until no process is left but this one and the init; False if some stay."""
        allowed = {"1", str(os.getpid())}
        pause = 0.0001
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            reap()
            if not [name for name in os.listdir("/proc") if name.isdigit() and name not in allowed]:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            kill_everything()

    def wipe(self) -> int | None:
        """Empty every writable folder as the program's user, then verify; WIPE in the child."""
        kill_everything()
        self.alone()
        child = os.fork()
        if not child:
            null = os.open(os.devnull, os.O_RDWR)
            enter(self.config, [null, null, null])
            return WIPE
        handle = os.pidfd_open(child)
        if not select.select([handle], [], [], SETTLE_SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        os.close(handle)
        os.waitpid(child, 0)
        for folder in self.config["folders"]:
            os.utime(folder, (0, 0))
        clean = self.alone() and traces(self.config) == []
        self.expires = time.monotonic() + _IDLE_SECONDS
        os.write(self.sink, REPLY.pack(0, 0 if clean else UNCLEAN, 0.0, 0, 0))
        return None


def main() -> None:
    """Serve; then, in each forked child, do what it was forked for."""
    config = json.loads(sys.argv[1])
    if "direct" in config:  # one execution and no serving: streams and body are inherited
        enter(config, [0, 1, 2, *config["inherited"]])
        operation, body = config["direct"], 3
    else:
        operation, body = Runner(config).serve()
    if operation == PYTHON:
        run_python(take(body))
    elif operation == EXEC:
        run_argv(take(body))
    elif operation == CELL:
        run_cells()
    elif operation == PUT:
        answer(put, take(body))
    elif operation == GET:
        answer(get, take(body))
    else:
        for folder in config["folders"]:
            empty(folder)
        os._exit(0)
