"""Programs as plain processes of this machine, without isolation, for people who trust their programs.

Only a deadline, an output cap and a few rlimits are in effect: a program can read and write all that its user can,
reach the network, and leave behind processes that started a session of their own, and whatever the kernel keeps
without a process: message queues, shared memory, semaphores, keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envgym.errors import SandboxError
from envgym.sandbox.interface import Backend, ExecResult, Limits, Sandbox
from envgym_sandboxes.channel import RunnerReply
from envgym_sandboxes.inside import wire
from envgym_sandboxes.inside.cells import Session, open_pipes
from envgym_sandboxes.inside.watch import Stream
from envgym_sandboxes.request_codec import (
    check_written,
    pack_argv,
    pack_code,
    pack_files,
    pack_request,
    unpack_file,
)
from envgym_sandboxes.runner_command import runner_source

__all__ = ["UnsafeLocalBackend"]

_FILE_SECONDS = 10.0
_POLL_SECONDS = 0.002


class UnsafeLocalBackend(Backend):
    """Runs programs as this user, without protection. It is used only if named.

    Of ``Limits``, memory is enforced per process; the number of processes and processor time are not enforced.
    """

    isolated = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._open: set[_LocalSandbox] = set()

    @classmethod
    def unavailable(cls) -> str | None:
        """Return the reason why this machine cannot run it (it is not POSIX), or ``None``."""
        return None if os.name == "posix" else "unsafe_local needs a POSIX system"

    async def open(self, limits: Limits) -> Sandbox:
        """Make a temporary folder for programs; see ``Backend.open``."""
        self._open = {sandbox for sandbox in self._open if not sandbox.closed}
        sandbox = _LocalSandbox(limits)
        self._open.add(sandbox)
        return sandbox

    async def close(self) -> None:
        """Close every sandbox; see ``Backend.close``."""
        while self._open:
            await self._open.pop().close()


class _LocalSandbox(Sandbox):
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._expires = time.monotonic() + limits.total_seconds
        self._root = Path(tempfile.mkdtemp(prefix="envgym-unsafe-"))
        for name in ("work", "tmp", "program"):
            (self._root / name).mkdir()
        self._turn = asyncio.Lock()
        self._session: tuple[subprocess.Popen[bytes], Session] | None = None
        self.closed = False

    async def run_python(self, code: str, *, stdin: bytes = b"", wall_seconds: float | None = None) -> ExecResult:
        return await self._execute(wire.PYTHON, pack_code(code), stdin, wall_seconds)

    async def run_cell(self, code: str, *, wall_seconds: float | None = None) -> ExecResult:
        asked = time.monotonic()
        async with self._turn:
            wall, queued = self._wall(wall_seconds), time.monotonic() - asked
            with contextlib.ExitStack() as stack:
                body = pack_code(code)
                return (await self._cell(_memory(stack, body), len(body), wall)).result(queued)

    async def exec(
        self, argv: Sequence[str], *, stdin: bytes = b"", wall_seconds: float | None = None
    ) -> ExecResult:
        return await self._execute(wire.EXEC, pack_argv(argv), stdin, wall_seconds)

    async def write(self, files: Mapping[str, bytes]) -> None:
        async with self._turn:
            check_written(await self._run(wire.PUT, pack_files(files), b"", _FILE_SECONDS, 0))

    async def read(self, path: str, *, limit: int = 2**20) -> bytes:
        async with self._turn:
            reply = await self._run(wire.GET, pack_request(path, limit), b"", _FILE_SECONDS, limit)
        return unpack_file(reply, path, limit)

    async def close(self) -> None:
        self.closed = True
        self._end_session()
        await asyncio.to_thread(shutil.rmtree, self._root, ignore_errors=True)

    async def _execute(self, operation: int, body: bytes, stdin: bytes, wall: float | None) -> ExecResult:
        asked = time.monotonic()
        async with self._turn:
            self._end_session()
            queued = time.monotonic() - asked
            reply = await self._run(operation, body, stdin, self._wall(wall), self._limits.output_bytes)
            return reply.result(queued)

    def _wall(self, asked: float | None) -> float:
        wall = self._limits.wall_seconds if asked is None else asked
        return max(0.0, min(wall, self._expires - time.monotonic()))

    async def _cell(self, body: int, size: int, wall: float) -> RunnerReply:
        process, session = self._open_session()
        started, cap = time.monotonic(), self._limits.output_bytes
        running = asyncio.create_task(asyncio.to_thread(session.run, body, size, cap, started + wall, None))
        try:
            state, streams = await asyncio.shield(running)
        except asyncio.CancelledError:
            process.kill()
            await running
            self._end_session()
            raise
        code = int(state == "raised")
        if state not in ("done", "raised"):
            code = self._end_session()
        return _reply(code, streams, time.monotonic() - started, timed_out=state == "late")

    def _open_session(self) -> tuple[subprocess.Popen[bytes], Session]:
        if self.closed:
            raise SandboxError("the sandbox is closed")
        if self._session is None:
            with contextlib.ExitStack() as stack, Path(os.devnull).open("rb") as null:
                ours, theirs = open_pipes()
                for descriptor in theirs:
                    stack.callback(os.close, descriptor)
                process = self._start(wire.CELL, null.fileno(), theirs[:2], theirs[2:])
            self._session = process, Session(os.pidfd_open(process.pid), *ours)
        return self._session

    def _end_session(self) -> int:
        """End the session, if there is one, and return its exit code."""
        if self._session is None:
            return 0
        (process, session), self._session = self._session, None
        _end(process)
        session.close()
        return process.returncode

    async def _run(self, operation: int, body: bytes, stdin: bytes, wall: float, cap: int) -> RunnerReply:
        if self.closed:
            raise SandboxError("the sandbox is closed")
        with contextlib.ExitStack() as stack:
            inputs = [_memory(stack, body), _memory(stack, stdin)]
            pipes = [_pipe(stack), _pipe(stack)]
            streams = [Stream(reading, cap) for reading, _ in pipes]
            started = time.monotonic()
            try:
                process = self._start(operation, inputs[1], [writing for _, writing in pipes], inputs[:1])
            except OSError as error:
                raise SandboxError(f"no process could be started: {error}") from error
            try:
                timed_out = await _watch(process, streams, started + wall)
                seconds = time.monotonic() - started
            finally:
                _end(process)
            for stream in streams:
                stream.drain(wire.FLOOD * cap)
            return _reply(process.returncode, streams, seconds, timed_out=timed_out)

    def _start(
        self, operation: int, stdin: int, outputs: list[int], inherited: list[int]
    ) -> subprocess.Popen[bytes]:
        limits = self._limits
        config = {
            "direct": operation,
            "inherited": inherited,
            "uid": None,
            "work": str(self._root / "work"),
            "program": str(self._root / "program"),
            "rlimits": {
                "RLIMIT_CORE": 0,
                "RLIMIT_NOFILE": limits.open_files,
                "RLIMIT_FSIZE": limits.disk_bytes,
                "RLIMIT_DATA": limits.memory_bytes,
            },
        }
        command = [sys.executable, "-I", "-c", runner_source(), json.dumps(config)]
        variables = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._root / "work"),
            "TMPDIR": str(self._root / "tmp"),
            "LANG": "C.UTF-8",
        }
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=outputs[0],
            stderr=outputs[1],
            pass_fds=inherited,
            env=variables,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reply(code: int, streams: list[Stream], seconds: float, *, timed_out: bool) -> RunnerReply:
    return RunnerReply(
        wait_status=code << 8 if code >= 0 else -code,
        flags=wire.TIMED_OUT if timed_out else 0,
        run_seconds=seconds,
        stdout=b"".join(streams[0].parts()),
        stderr=b"".join(streams[1].parts()),
        stdout_total=streams[0].total,
        stderr_total=streams[1].total,
    )


async def _watch(process: subprocess.Popen[bytes], streams: list[Stream], end: float) -> bool:
    """Drain the streams until the process ends or floods its output; return True if the deadline came first."""
    pause = _POLL_SECONDS
    while process.poll() is None:
        for stream in streams:
            stream.drain(wire.FLOOD * stream.cap)
            if stream.total > wire.FLOOD * stream.cap:
                return False
        if time.monotonic() > end:
            return True
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.02)
    return False


def _memory(stack: contextlib.ExitStack, content: bytes) -> int:
    descriptor = os.memfd_create("input")
    stack.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    os.set_blocking(reading, False)
    return reading, writing
