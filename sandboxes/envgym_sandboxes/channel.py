"""The host's end of a runner's socket: one request out, one reply back, never two at a time."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from envgym.errors import SandboxError
from envgym.sandbox.interface import ExecResult, Status
from envgym_sandboxes.inside import wire

__all__ = ["Channel", "RunnerReply"]

_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerReply:
    """The runner's report of one execution; only the two streams come from the program."""

    wait_status: int
    flags: int
    run_seconds: float
    stdout: bytes
    stderr: bytes
    stdout_total: int
    """Number of bytes written, of which ``stdout`` keeps the head and the tail."""
    stderr_total: int

    @property
    def clean(self) -> bool:
        """True when no process and no file was left behind."""
        return not self.flags & wire.UNCLEAN

    def result(self, queue_seconds: float) -> ExecResult:
        """Return the result of the execution; of several causes, the first in order names the status."""
        exited = os.WIFEXITED(self.wait_status)
        return ExecResult(
            status=self._status(),
            exit_code=os.WEXITSTATUS(self.wait_status) if exited else None,
            signal=None if exited else os.WTERMSIG(self.wait_status),
            stdout=_marked(self.stdout, self.stdout_total),
            stderr=_marked(self.stderr, self.stderr_total),
            queue_seconds=queue_seconds,
            run_seconds=self.run_seconds,
        )

    def _status(self) -> Status:
        timed_out = bool(self.flags & wire.TIMED_OUT)
        failed = timed_out or self.wait_status != 0
        cut = self.stdout_total > len(self.stdout) or self.stderr_total > len(self.stderr)
        causes = [
            (not self.clean, Status.BROKE_SANDBOX),
            (failed and bool(self.flags & wire.OOM), Status.OOM),
            (cut, Status.OUTPUT_LIMIT),
            (failed and bool(self.flags & wire.PIDS), Status.PIDS_LIMIT),
            (failed and bool(self.flags & wire.DISK), Status.DISK_FULL),
            (timed_out, Status.TIMEOUT),
            (os.WIFSIGNALED(self.wait_status), Status.SIGNAL),
            (failed, Status.NONZERO),
        ]
        return next((status for cause, status in causes if cause), Status.OK)


class Channel:
    """The host's end of one runner's channel.

    Args:
        connection: socket connected to the runner; the channel owns it.
        decode: removes the transport's framing from the runner's bytes.

    A channel holds no event loop, so it may serve one loop after another, but one task at a time.
    """

    def __init__(self, connection: socket.socket, decode: Callable[[bytes], bytes] = bytes) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._decode = decode
        self._pending = bytearray()
        self.usable = True
        """False during a request, and for good if it is not fully answered: then the runner must be destroyed."""

    async def request(
        self,
        operation: int,
        *,
        wall_seconds: float = 0.0,
        cap: int = 0,
        body: bytes = b"",
        stdin: bytes = b"",
        grace_seconds: float,
    ) -> RunnerReply:
        """Send one request and wait for its reply.

        Args:
            operation: one of the runner's operations.
            wall_seconds: deadline that the runner enforces, in seconds.
            cap: bytes kept of each output stream.
            body: the program, the command or the files.
            stdin: the program's standard input.
            grace_seconds: time to wait here beyond ``wall_seconds``, in seconds.

        Raises:
            SandboxError: the runner is gone.
            TimeoutError: the runner did not answer in time.
        """
        head = wire.REQUEST.pack(operation, wall_seconds, cap, len(body), len(stdin))
        self.usable = False  # a cancelled or late request leaves its reply on the wire, out of step with the next
        async with asyncio.timeout(wall_seconds + grace_seconds):
            try:
                await asyncio.get_running_loop().sock_sendall(self._connection, head + body + stdin)
                reply = await self._reply(cap)
            except OSError as error:
                raise SandboxError(f"the sandbox is gone: {error}") from error
        self.usable = True
        return reply

    async def _reply(self, cap: int) -> RunnerReply:
        head = await self._take(wire.REPLY.size)
        wait_status, flags, seconds, out_total, err_total = wire.REPLY.unpack(head)
        return RunnerReply(
            wait_status=wait_status,
            flags=flags,
            run_seconds=seconds,
            # The cap bounds the memory used here, whatever totals a compromised runner may claim.
            stdout=await self._take(min(out_total, cap)),
            stderr=await self._take(min(err_total, cap)),
            stdout_total=out_total,
            stderr_total=err_total,
        )

    async def _take(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        while len(self._pending) < size:
            data = await loop.sock_recv(self._connection, _CHUNK)
            if not data:
                raise SandboxError("the sandbox ended by itself")
            self._pending += self._decode(data)
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    def alive(self) -> bool:
        """Return whether an idle runner is still there: its end is open and it has said nothing unasked."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return self.usable
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the connection, which also ends the runner."""
        self._connection.close()


def _marked(kept: bytes, total: int) -> bytes:
    if total == len(kept):
        return kept
    middle = len(kept) - len(kept) // 2
    return b"%b\n[... %d bytes cut ...]\n%b" % (kept[:middle], total - len(kept), kept[middle:])
