"""A bounded pool of workers, some of them warm and idle.

A thread lock guards all state, and workers are handed over through ``concurrent.futures`` rather than asyncio's
futures, so that one pool can serve one event loop after another.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from envgym.errors import SandboxError
from envgym.sandbox.interface import Limits
from envgym_sandboxes.worker import Worker

__all__ = ["SandboxPool", "default_capacity"]

_CONCURRENT_STARTS = 4

Shape = tuple[float, ...]


def default_capacity() -> int:
    """Return the default number of sandboxes that run at once: two a core, at most 16."""
    return min(16, 2 * (os.cpu_count() or 1))


def shape(limits: Limits) -> Shape:
    """Return the limits that are fixed when a worker starts; workers of one shape are interchangeable."""
    return (limits.memory_bytes, limits.disk_bytes, limits.processes, limits.open_files, limits.cpus)


@dataclass(slots=True, kw_only=True)
class _Waiter:
    limits: Limits
    future: Future[Worker] = field(default_factory=Future)


class SandboxPool:
    """Lends workers, which it starts on demand up to ``capacity``; further callers wait in line.

    Args:
        launch: starts a worker for some limits and returns it verified. It blocks, and runs in a thread.
        capacity: maximum number of workers alive at once.
    """

    def __init__(self, launch: Callable[[Limits], Worker], capacity: int) -> None:
        self._launch = launch
        self._capacity = capacity
        self._lock = threading.RLock()
        self._idle: list[tuple[Shape, Worker]] = []
        self._lent: dict[Worker, Shape] = {}
        self._busy = 0
        """Number of workers being started or killed; they count against the capacity, too."""
        self._line: deque[_Waiter] = deque()
        self._threads = ThreadPoolExecutor(_CONCURRENT_STARTS, thread_name_prefix="envgym-sandbox")
        self._closed = False

    async def acquire(self, limits: Limits) -> Worker:
        """Borrow a worker; wait while the pool is at capacity.

        Raises:
            SandboxError: the worker could not be started, or the pool is closed.
        """
        waiter = _Waiter(limits=limits)
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox backend is closed")
            self._line.append(waiter)
            self._serve()
        try:
            return await asyncio.wrap_future(waiter.future)
        except asyncio.CancelledError:
            # A worker handed over before the cancellation has no other owner to return it.
            if not waiter.future.cancel() and waiter.future.exception() is None:
                self.release(waiter.future.result())
            raise

    def release(self, worker: Worker) -> None:
        """Return a clean worker to the pool for the next episode."""
        with self._lock:
            kind = self._lent.pop(worker, None)
            if kind is None:
                return
            if self._closed or not worker.channel.alive():
                self._retire(worker)
            else:
                self._idle.append((kind, worker))
            self._serve()

    def discard(self, worker: Worker) -> Future[None]:
        """Destroy a lent worker; the returned future is done when it is gone."""
        with self._lock:
            if self._lent.pop(worker, None) is None:
                done: Future[None] = Future()
                done.set_result(None)
                return done
            return self._retire(worker)

    async def close(self) -> None:
        """Destroy every worker and refuse further requests. Safe to call twice."""
        with self._lock:
            self._closed = True
            for waiter in self._line:
                if waiter.future.set_running_or_notify_cancel():
                    waiter.future.set_exception(SandboxError("the sandbox backend was closed"))
            self._line.clear()
            for worker in [*self._lent, *(worker for _, worker in self._idle)]:
                self._retire(worker)
            self._lent.clear()
            self._idle.clear()
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    def _serve(self) -> None:
        """Give each waiter an idle worker of its shape, or start one for it if the capacity allows."""
        waiting: deque[_Waiter] = deque()
        startable = self._capacity - self._busy - len(self._lent) - len(self._idle)
        while self._line:
            waiter = self._line.popleft()
            if waiter.future.cancelled():
                continue
            worker = self._take_idle(shape(waiter.limits))
            if worker is not None:
                self._hand_over(worker, waiter)
            elif startable > 0:
                startable -= 1
                self._start(waiter)
            else:
                waiting.append(waiter)
        self._line = waiting
        if waiting and self._idle:  # idle workers of other shapes must not block the line: make room
            self._retire(self._idle.pop(0)[1])

    def _take_idle(self, kind: Shape) -> Worker | None:
        for at in reversed(range(len(self._idle))):
            if self._idle[at][0] == kind:
                worker = self._idle.pop(at)[1]
                if worker.channel.alive():
                    return worker
                self._retire(worker)
        return None

    def _hand_over(self, worker: Worker, waiter: _Waiter) -> None:
        kind = shape(waiter.limits)
        if waiter.future.set_running_or_notify_cancel():
            self._lent[worker] = kind
            waiter.future.set_result(worker)
        else:
            self._idle.append((kind, worker))

    def _start(self, waiter: _Waiter) -> None:
        self._busy += 1
        self._threads.submit(self._launch_for, waiter)

    def _launch_for(self, waiter: _Waiter) -> None:
        worker, failure = None, None
        try:
            worker = self._launch(waiter.limits)
        except SandboxError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - passed on to the waiter, which would wait forever
            failure = SandboxError(f"the sandbox could not be started: {error!r}")
            failure.__cause__ = error
        with self._lock:
            self._busy -= 1
            if worker is None:
                if waiter.future.set_running_or_notify_cancel():
                    waiter.future.set_exception(failure)
            elif self._closed:
                self._busy += 1
                self._kill(worker)
            else:
                self._hand_over(worker, waiter)
            if not self._closed:
                self._serve()

    def _retire(self, worker: Worker) -> Future[None]:
        self._busy += 1
        return self._threads.submit(self._kill, worker)

    def _kill(self, worker: Worker) -> None:
        try:
            worker.kill()
        finally:
            with self._lock:
                self._busy -= 1
                if not self._closed:
                    self._serve()
