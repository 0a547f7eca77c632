"""The thread that runs the model: takes requests in, steps the scheduler, hands completions back."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from envgym.errors import PolicyError
from envgym_trainers.engine.interface import Sampled
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.engine.sequences import Row

__all__ = ["SamplingLoop"]

_WAIT_STEPS = 6
"""Decoding steps that a lone newcomer waits for company before it is run."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    row: Row
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Sampled]
    waited: int = 0
    version: int = 0
    """The oldest weights that sampled for it."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Errand:
    """Something to do while no forward pass runs."""

    do: Callable[[], None]
    done: Future[None] = field(default_factory=Future)


class SamplingLoop:
    """Samples rows in a thread of its own, continuously batched.

    The scheduler is touched by that thread alone; everyone else leaves messages in its inbox. So nothing needs a
    lock, and no message meets a forward pass half done.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.version = 0
        """Of the weights. A row that an older version ran is run again from its ids: no stale cache."""
        self.tokens = 0
        """Sampled so far."""
        self.completions = 0
        """Requests answered so far."""
        self._inbox: queue.SimpleQueue[_Request | _Errand | Row | None] = queue.SimpleQueue()
        """A request, an errand, a row to forget, or ``None``: the end."""
        self._waiting: list[_Request] = []
        self._active: dict[Row, _Request] = {}
        self._resting: dict[Row, None] = {}
        """Rows with a slot that nobody samples for, the longest rested first."""
        self._stopped: PolicyError | None = None
        # Tools and environments run while the model does: without a core of their own, both wait for each other.
        self._cores = max(1, torch.get_num_threads() - 1)
        self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
        self._thread.start()

    async def sample(self, row: Row) -> Sampled:
        """Have ``row`` sampled.

        Raises:
            PolicyError: the loop stopped.
        """
        loop = asyncio.get_running_loop()
        request = _Request(row=row, loop=loop, future=loop.create_future())
        self._inbox.put(request)
        # After the put: a request is either seen by the thread's last look at the inbox or refused here.
        self.check()
        return await request.future

    async def between_steps(self, do: Callable[[], None]) -> None:
        """Have ``do`` called by the thread while no forward pass runs. An exception in it ends the loop.

        Raises:
            PolicyError: the loop stopped.
        """
        errand = _Errand(do=do)
        self._inbox.put(errand)
        self.check()
        await asyncio.wrap_future(errand.done)

    def check(self) -> None:
        """Raise ``PolicyError`` if the loop stopped."""
        if self._stopped is not None:
            raise PolicyError(str(self._stopped))

    def forget(self, row: Row) -> None:
        """Free what ``row`` holds."""
        self._inbox.put(row)

    async def close(self) -> None:
        """End the thread; whoever still waits gets a ``PolicyError``. Safe to call twice."""
        self._inbox.put(None)
        # The thread may be in the middle of a pass, and the event loop has others to serve meanwhile.
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        reason = "it was closed"
        try:
            while self._receive():
                self._step()
        except BaseException as error:  # noqa: BLE001 - every waiting conversation is told
            reason = f"{type(error).__name__}: {error}"
        self._stopped = PolicyError(f"the engine stopped: {reason}")
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, _Request):
                self._waiting.append(item)
            elif isinstance(item, _Errand) and item.done.set_running_or_notify_cancel():
                item.done.set_exception(PolicyError(str(self._stopped)))
        for request in (*self._waiting, *self._active.values()):
            _deliver(request, PolicyError(str(self._stopped)))

    def _receive(self) -> bool:
        """Take in everything that arrived; block only when there is nothing to run."""
        block = not self._active and not self._waiting
        while block or not self._inbox.empty():
            item = self._inbox.get()
            block = False
            if item is None:
                return False
            if isinstance(item, _Request):
                self._resting.pop(item.row, None)
                self._waiting.append(item)
            elif isinstance(item, _Errand):
                _run_errand(item)
            else:
                self._drop(item)
        return True

    def _drop(self, row: Row) -> None:
        requests = [self._active.pop(row, None), *(r for r in self._waiting if r.row is row)]
        for request in filter(None, requests):
            _deliver(request, PolicyError("the conversation was closed while it was sampling"))
        self._waiting = [request for request in self._waiting if request.row is not row]
        self._resting.pop(row, None)
        if row.slot >= 0:
            self.scheduler.release(row)

    def _step(self) -> None:
        version = self.version
        admitted = self._admitted()
        if admitted and not self._active:
            # Torch keeps part of this for the whole process: a learner may have set its own meanwhile, and must
            # keep it for as long as nothing is sampled.
            torch.set_num_threads(self._cores)
        for request in admitted:
            request.version = version
        self._active.update({request.row: request for request in admitted})
        ready = [request.row for request in admitted]
        # New weights in the middle of a turn: what the old ones cached is void, so these rows start over as well.
        ready += [row for row in self._active if row.version != version and row not in ready]
        for row in ready:
            if row.version != version:
                row.cached, row.version = 0, version
        if ready:
            self.scheduler.extend(ready)
        elif self._active:
            self.scheduler.decode(list(self._active))
        self._finish()

    def _admitted(self) -> list[_Request]:
        """Take the requests to run now.

        To extend a row stops everyone's decoding for a pass that costs about as much for one row as for several.
        So newcomers wait a few steps for company, unless they are many beside those that decode already.
        """
        self._waiting = [request for request in self._waiting if not self._cancelled(request)]
        for request in self._waiting:
            request.waited += 1
        patient = all(request.waited < _WAIT_STEPS for request in self._waiting)
        if not self._waiting or (patient and len(self._waiting) * 4 < len(self._active)):
            return []
        ready: list[_Request] = []
        later: list[_Request] = []
        for request in self._waiting:
            (ready if self._place(request.row) else later).append(request)
        self._waiting = later
        return ready

    def _place(self, row: Row) -> bool:
        """Give the row a slot: its own, a free one, or that of the row that has rested longest."""
        if row.slot < 0:
            if not self.scheduler.free_slots and self._resting:
                rested = next(iter(self._resting))
                del self._resting[rested]
                self.scheduler.release(rested)
            if self.scheduler.free_slots:
                self.scheduler.admit(row)
        return row.slot >= 0

    def _finish(self) -> None:
        for row, request in list(self._active.items()):
            if self._cancelled(request):
                del self._active[row]
            elif row.ended or len(row.sampled) >= row.budget:
                del self._active[row]
                self._resting[row] = None
                self.tokens += len(row.sampled)
                self.completions += 1
                result = Sampled(ids=row.sampled, logprobs=row.logprobs, ended=row.ended, version=request.version)
                _deliver(request, result)

    def _cancelled(self, request: _Request) -> bool:
        """Tell if nobody waits for the request any more; its row then rests until it is closed."""
        cancelled = request.future.cancelled()
        if cancelled and request.row.slot >= 0:
            self._resting[request.row] = None
        return cancelled


def _run_errand(errand: _Errand) -> None:
    if not errand.done.set_running_or_notify_cancel():
        return
    try:
        errand.do()
    except BaseException as error:
        errand.done.set_exception(PolicyError(f"the engine stopped: {type(error).__name__}: {error}"))
        raise
    errand.done.set_result(None)


def _deliver(request: _Request, result: Sampled | PolicyError) -> None:
    def settle() -> None:
        if request.future.done():
            return
        if isinstance(result, PolicyError):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)

    # The loop may be closed already; drop the result.
    with contextlib.suppress(RuntimeError):
        request.loop.call_soon_threadsafe(settle)
