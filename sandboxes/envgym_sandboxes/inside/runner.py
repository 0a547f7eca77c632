"""The runner: fork once per execution, watch the child, end everything, and report the outcome.

Its source text is an argument of its own command line, so that it needs no mount and no particular image. It
sends one reply to each request of the host, and nothing unasked.

Requests carry programs, arguments, file names and inputs, but the runner never holds them: it splices them from
the channel into memory files that only the forked child reads. So the memory from which the next execution is
forked keeps nothing of the last one, and the runner parses nothing hostile. The child drops to the program's user
and closes everything but its three streams. It is killed, together with all that it started, as soon as its main
process ends or the deadline passes.
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
from envgym_sandboxes.inside.watch import Stream, counter, hide, kill_everything, output_pipe, reap, traces
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
"""Life without a request between two episodes: an owner that is gone for longer is taken for dead."""


class Runner:
    """Serves requests; ``serve`` returns only in a forked child, with the child's task."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.source = os.dup(0)
        self.sink = os.dup(1)
        os.set_inheritable(self.source, False)
        os.set_inheritable(self.sink, False)
        null = os.open(os.devnull, os.O_RDWR)  # no stray read or print may touch the channel
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        if config["uid"] is None:
            hide()
        else:
            for folder in config["folders"]:
                # Sticky and owned by root: the program can fill the folder, but not change its owner or mode.
                os.chmod(folder, 0o1777)
        self.between = os.pipe()  # ``splice`` moves bytes only from or to a pipe
        self.session: Session | None = None
        self.session_child = 0
        self.expires = time.monotonic() + _IDLE_SECONDS
        gc.collect()
        gc.freeze()  # a collection in a child would otherwise copy every page of this process

    def serve(self) -> tuple[int, int]:
        """Answer requests until the channel ends or time is up, which ends the process; return in a forked child.

        Returns:
            the child's operation, and the descriptor of the request's body, -1 without one.
        """
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
        """Move ``size`` bytes from the channel into a memory file without reading them into this process."""
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
        """Fork the child and watch it; return None in the runner, the task in the child.

        A program or a command ends the session; file operations leave it running.
        """
        if operation in (PYTHON, EXEC):
            self.end_session()
        out_read, out_write = output_pipe()
        err_read, err_write = output_pipe()
        before = self.counters()
        started = time.monotonic()
        try:
            child = os.fork()
        except OSError:
            # The session's processes use up the limit on processes.
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
        if self.session is None:  # otherwise the session's processes must live on
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
        """Run a cell in the session, which the first starts; return None in the runner, the task in the child."""
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
        """End the session, if there is one; return its wait status, and whether nothing of it is left."""
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
        """Drain the streams until the main process ends or floods them; return True if the deadline came first."""
        poller = select.poll()
        by_descriptor = {stream.descriptor: stream for stream in streams}
        for descriptor in by_descriptor:
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.POLLIN)
        handle = os.pidfd_open(child)
        poller.register(handle, select.POLLIN)
        poller.register(self.source, 0)  # no events asked for, so that poll reports only a hang-up
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
        """Send the outcome of an execution with the kept output, then forget the output.

        Args:
            code: wait status of the main process.
            flags: flags of ``wire``.
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
        """Wait until only this process and the init are left; return False if others stay."""
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
        """Empty every writable folder, then verify; return None in the runner, WIPE in the child.

        The child has only the rights of the program's user, so that hostile names and links cannot misuse more.
        """
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
            os.utime(folder, (0, 0))  # times, too, could carry a message to the next episode
        clean = self.alone() and traces(self.config) == []
        self.expires = time.monotonic() + _IDLE_SECONDS
        os.write(self.sink, REPLY.pack(0, 0 if clean else UNCLEAN, 0.0, 0, 0))
        return None


def main() -> None:
    """Serve requests; in each forked child, carry out its task."""
    config = json.loads(sys.argv[1])
    if "direct" in config:  # a single execution without a channel: streams and body are inherited
        enter(config, [0, 1, 2, *config["inherited"]])
        operation, body = config["direct"], 3
    else:
        operation, body = Runner(config).serve()
    if operation == PYTHON:
        run_python(take(body), config["program"])
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
