"""The sandbox over a lent worker, common to every backend whose programs a runner forks."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from envgym.errors import SandboxError
from envgym.sandbox.interface import ExecResult, Limits, Sandbox, Status
from envgym_sandboxes.channel import RunnerReply
from envgym_sandboxes.inside import wire
from envgym_sandboxes.pool import SandboxPool
from envgym_sandboxes.request_codec import (
    check_written,
    pack_argv,
    pack_code,
    pack_files,
    pack_request,
    unpack_file,
)
from envgym_sandboxes.worker import Worker

__all__ = ["RunnerSandbox", "open_session"]

_GRACE_SECONDS = wire.SETTLE_SECONDS + 3.0
_FILE_SECONDS = 5.0
_OPEN_SECONDS = 10.0
_LOOK_SECONDS = 2.0


class RunnerSandbox(Sandbox):
    """Executes in a worker borrowed from a pool, one execution at a time; ``close`` returns the worker.

    Args:
        pool: owner of the worker.
        worker: the lent worker.
        limits: the limits in effect.
        expires: end of its total time, on ``time.monotonic``.
        reusable: let the worker serve another episode once it is wiped and verified clean.
    """

    def __init__(
        self, pool: SandboxPool, worker: Worker, limits: Limits, *, expires: float, reusable: bool
    ) -> None:
        self._pool = pool
        self._worker: Worker | None = worker
        self._limits = limits
        self._expires = expires
        self._reusable = reusable
        self._broken = False
        self._turn: asyncio.Lock = asyncio.Lock()

    async def run_python(self, code: str, *, stdin: bytes = b"", wall_seconds: float | None = None) -> ExecResult:
        """Run ``code`` as a fresh ``__main__``; see ``Sandbox.run_python``."""
        return await self._execute(wire.PYTHON, pack_code(code), stdin, wall_seconds)

    async def run_cell(self, code: str, *, wall_seconds: float | None = None) -> ExecResult:
        """Run ``code`` in the Python session; see ``Sandbox.run_cell``."""
        return await self._execute(wire.CELL, pack_code(code), b"", wall_seconds)

    async def exec(
        self, argv: Sequence[str], *, stdin: bytes = b"", wall_seconds: float | None = None
    ) -> ExecResult:
        """Run ``argv``; see ``Sandbox.exec``.

        Raises:
            ValueError: ``argv`` is empty or holds a NUL.
            SandboxError: the sandbox failed, not the program.
        """
        return await self._execute(wire.EXEC, pack_argv(argv), stdin, wall_seconds)

    async def write(self, files: Mapping[str, bytes]) -> None:
        """Write files; see ``Sandbox.write``."""
        check_written(await self._file_operation(wire.PUT, pack_files(files), cap=0))

    async def read(self, path: str, *, limit: int = 2**20) -> bytes:
        """Read one regular file; see ``Sandbox.read``."""
        reply = await self._file_operation(wire.GET, pack_request(path, limit), cap=limit)
        return unpack_file(reply, path, limit)

    async def close(self) -> None:
        """End every process and remove everything; see ``Sandbox.close``."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        clean = False
        try:
            if self._reusable and not self._broken and worker.channel.usable:
                reply = await worker.channel.request(wire.WIPE, grace_seconds=_GRACE_SECONDS)
                clean = reply.clean
        except (SandboxError, TimeoutError):
            clean = False
        finally:
            gone = None if clean else self._pool.discard(worker)
            if clean:
                self._pool.release(worker)
        if gone is not None:
            await asyncio.shield(asyncio.wrap_future(gone))

    async def _execute(self, operation: int, body: bytes, stdin: bytes, wall_seconds: float | None) -> ExecResult:
        wall = self._limits.wall_seconds if wall_seconds is None else wall_seconds
        asked = time.monotonic()
        async with self._turn:
            queued = time.monotonic() - asked
            wall = min(wall, self._expires - time.monotonic())
            if self._broken:
                return ExecResult(status=Status.BROKE_SANDBOX, exit_code=None, queue_seconds=queued)
            if wall <= 0:
                return ExecResult(status=Status.TIMEOUT, exit_code=None, queue_seconds=queued)
            reply = await self._request(operation, wall, self._limits.output_bytes, body, stdin)
            self._broken = reply is None or not reply.clean
            if reply is None:
                return ExecResult(status=Status.BROKE_SANDBOX, exit_code=None, queue_seconds=queued)
            return reply.result(queued)

    async def _file_operation(self, operation: int, body: bytes, cap: int) -> RunnerReply:
        async with self._turn:
            if self._broken:
                raise OSError(errno.EIO, "the program broke its sandbox")
            reply = await self._request(operation, _FILE_SECONDS, cap, body, b"")
            if reply is None:
                self._broken = True
                raise OSError(errno.EIO, "the program broke its sandbox")
            return reply

    async def _request(
        self, operation: int, wall: float, cap: int, body: bytes, stdin: bytes
    ) -> RunnerReply | None:
        """Ask the runner; return ``None`` if the program has left it unable to answer."""
        worker = self._worker
        if worker is None:
            raise SandboxError("the sandbox is closed")
        if len(body) + len(stdin) > wire.MAX_BODY_BYTES:
            raise ValueError(f"program, files and input together exceed {wire.MAX_BODY_BYTES} bytes")
        if not worker.channel.usable:
            raise SandboxError("the sandbox is out of step after an interrupted request")
        since = time.time()
        try:
            asked = worker.channel.request(
                operation, wall_seconds=wall, cap=cap, body=body, stdin=stdin, grace_seconds=_GRACE_SECONDS
            )
            return await _answered(worker, asked)
        except (SandboxError, TimeoutError) as error:
            end = await asyncio.to_thread(worker.end, since)
            if end.by_program:
                return None
            raise SandboxError(f"the sandbox does not answer: {end.words}") from error


async def _answered(worker: Worker, asked: Coroutine[Any, Any, RunnerReply]) -> RunnerReply:
    """Wait for the reply, for as long as the worker can give one.

    Raises:
        SandboxError: it is gone, or whatever carries its channel is.
        TimeoutError: it did not answer in time.
    """
    request = asyncio.ensure_future(asked)
    try:
        while not (await asyncio.wait([request], timeout=_LOOK_SECONDS))[0]:
            await asyncio.to_thread(worker.look)
        return request.result()
    finally:
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


async def open_session(pool: SandboxPool, limits: Limits, *, reusable: bool) -> RunnerSandbox:
    """Borrow a worker and start its total time.

    Args:
        pool: pool of workers.
        limits: the limits in effect.
        reusable: wipe and return the worker on close, instead of destroying it.

    Raises:
        SandboxError: no worker could be started, or it does not answer.
    """
    expires = time.monotonic() + limits.total_seconds
    worker = await pool.acquire(limits)
    try:
        # The runner's own expiry is the backstop for an owner that hangs, so it comes later than ``expires``.
        life = limits.total_seconds + _OPEN_SECONDS
        await worker.channel.request(wire.OPEN, wall_seconds=life, grace_seconds=_OPEN_SECONDS)
    except BaseException as error:
        pool.discard(worker)
        if isinstance(error, TimeoutError):
            raise SandboxError(f"a sandbox did not answer in {_OPEN_SECONDS:.0f} s") from error
        raise
    return RunnerSandbox(pool, worker, limits, expires=expires, reusable=reusable)
