"""Pool of worker processes, shared by every thread of this process.

A worker that does not reply in time is killed with everything it started; the next request starts a new one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

__all__ = ["WorkerPool", "WorkerReply", "WorkerFailedError", "WorkerTimeoutError", "shared_pool"]

_SIZE = 2
_START_SECONDS = 120.0
_GRACE_SECONDS = 0.15
_WALL_FACTOR = 3.0
"""Wall-clock seconds allowed per second of processor time, so that a busy machine causes no timeouts."""


class WorkerTimeoutError(Exception):
    """The request was not answered within its time."""


class WorkerFailedError(Exception):
    """The worker failed for a reason other than its request."""


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """Result of a request."""

    found: dict[str, Any]
    """Return value of the module's ``answer``."""
    seconds: float
    """Processor seconds that the request took."""


class _Worker:
    """One worker process and its pipes."""

    def __init__(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "envgym.workers.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # The worker must find the modules that this process finds, e.g. those a test runner's path adds.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,  # a group of its own, so that a kill reaches what the worker forked
            )
        except OSError as error:
            raise WorkerFailedError(f"the worker cannot be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._buffer = b""
        self._loaded: set[str] = set()
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def load(self, module: str) -> None:
        """Have the worker import ``module``, once."""
        if module not in self._loaded:
            self._send({"load": module})
            self._await_ready()
            self._loaded.add(module)

    def ask(self, module: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send one request and return its reply."""
        wall_seconds = _WALL_FACTOR * seconds
        limits = {"seconds": seconds, "wall_seconds": wall_seconds}
        self._send({"module": module, "request": request, **limits})
        return self._receive(wall_seconds + _GRACE_SECONDS)

    def abandon(self) -> None:
        """Close this process's ends of the pipes without killing the worker, which the parent process owns."""
        self._requests.close()
        self._replies.close()

    def kill(self) -> None:
        """Kill the process with its children, and close the pipes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._replies.close()

    def _await_ready(self) -> None:
        try:
            reply = self._receive(_START_SECONDS)
        except WorkerTimeoutError as error:
            raise WorkerFailedError(f"the worker did not start within {_START_SECONDS:.0f} s") from error
        if reply["status"] == "error":
            raise WorkerFailedError(reply["reason"])

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except OSError as error:
            raise WorkerFailedError("the worker is gone") from error

    def _receive(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise WorkerTimeoutError(f"no reply within {seconds:.2f} s")
            piece = os.read(self._replies.fileno(), 1 << 16)
            if not piece:
                raise WorkerFailedError("the worker died")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


class WorkerPool:
    """At most ``size`` workers, started when first needed. Safe to use from any thread."""

    def __init__(self, size: int = _SIZE) -> None:
        # Last in, first out: a warm worker is used again before another is started.
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)

    def ask(self, module: str, request: dict[str, Any], seconds: float) -> WorkerReply:
        """Call ``answer(request)`` of a module in a worker.

        Args:
            module: name of a module with ``answer(request) -> dict`` and perhaps ``warm_up()``; the worker imports
                it once and forks a child for each request.
            request: JSON values.
            seconds: processor time; waiting for a free worker, or for one to start, is not part of it.

        Raises:
            WorkerTimeoutError: the time was not enough.
            WorkerFailedError: the worker died, or ``answer`` raised.
        """
        worker = self._slots.get()
        try:
            worker = worker or _Worker()
            worker.load(module)
            reply = worker.ask(module, request, seconds)
        except BaseException:
            # Also on KeyboardInterrupt: a late reply in the pipe would answer the next request.
            if worker is not None:
                worker.kill()
            worker = None
            raise
        finally:
            self._slots.put(worker)
        if reply["status"] == "timeout":
            raise WorkerTimeoutError(reply["reason"])
        if reply["status"] == "error":
            raise WorkerFailedError(reply["reason"])
        return WorkerReply(reply["found"], reply["seconds"])

    def abandon(self) -> None:
        """Let go of the workers in a forked process.

        The queue's lock is not taken: another thread of the parent may have held it at the fork, for ever.
        """
        for worker in self._slots.queue:
            if worker is not None:
                worker.abandon()

    def close(self) -> None:
        """Kill the idle workers."""
        with contextlib.suppress(queue.Empty):
            while True:
                worker = self._slots.get_nowait()
                if worker is not None:
                    worker.kill()


_pool = WorkerPool()


def shared_pool() -> WorkerPool:
    """Return this process's pool."""
    return _pool


def _renew_after_fork() -> None:
    global _pool
    _pool.abandon()
    _pool = WorkerPool()


os.register_at_fork(after_in_child=_renew_after_fork)
atexit.register(lambda: _pool.close())
