"""The worker thread that runs the model: it queues requests, steps the scheduler, and returns completions."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import torch

from envgym.errors import PolicyError
from envgym_trainers.engine.cache import Row
from envgym_trainers.engine.interface import Sampled, Settled
from envgym_trainers.engine.messages import Errand, Request
from envgym_trainers.engine.scheduler import Scheduler

__all__ = ["SamplingLoop"]

_WAIT_STEPS = 6
"""Maximum number of decoding steps that a request waits so that others can join its prefill."""
_ROUND = 8
"""Decoding steps between two admissions where the loop follows the episodes: tools may take as long as these steps
before sampling waits for them."""


_Item = Request | Errand | Row | None


class SamplingLoop:
    """Samples rows in a worker thread, with continuous batching.

    Only the worker touches the scheduler; other threads put messages into its queue, which it reads between
    forward passes. So no state needs a lock, and no message changes a row in the middle of a pass.
    """

    def __init__(self, scheduler: Scheduler, concurrency: int) -> None:
        self.scheduler = scheduler
        self._concurrency = concurrency
        self.version = 0
        """Version of the weights. A row cached under an older version is run again from its ids."""
        self.tokens = 0
        """Number of tokens sampled so far."""
        self.completions = 0
        """Number of requests completed so far."""
        self.settled: Settled | None = None
        """If set, requests are admitted at fixed points only, once it has returned, and in a fixed order."""
        self.broken_rounds = 0
        """Number of admissions that did not wait for all episodes, because one took too long."""
        self._steps = 0
        """Number of steps since the last admission."""
        self._asking: set[asyncio.Task[None]] = set()
        self._closing = False
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        """Queue of requests, errands, rows to free, and ``None`` to stop."""
        self._waiting: list[Request] = []
        self._active: dict[Row, Request] = {}
        self._resting: dict[Row, None] = {}
        """Idle rows that still hold keys and values, least recently used first: the order of eviction."""
        self._renewed: int | None = 0
        """Version of the weights that the scheduler has taken; none while it rests."""
        self._stopped: PolicyError | None = None
        self._cores = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
        self._thread.start()

    async def sample(self, row: Row) -> Sampled:
        """Queue ``row`` and wait for its completion.

        Raises:
            PolicyError: the loop stopped.
        """
        loop = asyncio.get_running_loop()
        request = Request(row=row, loop=loop, future=loop.create_future())
        self._inbox.put(request)
        # Checked after the put: a request is either drained by the stopping worker or refused here, never lost.
        self.check()
        return await request.future

    async def between_steps(self, do: Callable[[], None]) -> None:
        """Call ``do`` in the worker between two forward passes. An exception in it stops the loop.

        Raises:
            PolicyError: the loop stopped.
        """
        errand = Errand(do=do)
        self._inbox.put(errand)
        self.check()
        await asyncio.wrap_future(errand.done)

    async def rest(self) -> None:
        """Free the memory of keys, values and packed weights until something is sampled again."""
        await self.between_steps(self._rest)

    def _rest(self) -> None:
        self.scheduler.rest()
        self._resting.clear()
        for row in self._active:
            row.version = -1
        self._renewed = None

    def check(self) -> None:
        """Raise ``PolicyError`` if the loop stopped."""
        if self._stopped is not None:
            raise PolicyError(str(self._stopped))

    def forget(self, row: Row) -> None:
        """Free what ``row`` holds, and fail its pending request."""
        self._inbox.put(row)

    async def close(self) -> None:
        """Stop the worker; pending calls raise ``PolicyError``. Safe to call twice."""
        self._closing = True
        self._inbox.put(None)
        # Joined in a thread: the worker may be in the middle of a pass, and the event loop must not block on it.
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        reason = "it was closed"
        try:
            while self._receive():
                self._step()
        except BaseException as error:  # noqa: BLE001 - propagated to every waiting conversation
            reason = f"{type(error).__name__}: {error}"
        self._stopped = PolicyError(f"the engine stopped: {reason}")
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, Request):
                self._waiting.append(item)
            elif isinstance(item, Errand):
                item.refuse(PolicyError(str(self._stopped)))
        for request in (*self._waiting, *self._active.values()):
            request.deliver(PolicyError(str(self._stopped)))

    def _receive(self) -> bool:
        """Drain the queue, blocking only if there is nothing to run; return false to stop."""
        if self.settled is not None and self._active and self._steps < _ROUND:
            return not self._closing
        # Until there is a request: what else comes, such as a row to free, says nothing of who has asked.
        while not self._active and not self._waiting:
            if not self._take(self._inbox.get()):
                return False
        if self.settled is not None:
            self._settle(self.settled)
        while not self._inbox.empty():
            if not self._take(self._inbox.get()):
                return False
        if self.settled is not None:
            self._waiting.sort(key=lambda request: request.row.order)
        return True

    def _take(self, item: _Item) -> bool:
        """Deal with one message; return false to stop."""
        if item is None:
            return False
        if isinstance(item, Request):
            self._resting.pop(item.row, None)
            self._waiting.append(item)
        elif isinstance(item, Errand):
            item.run()
        else:
            self._drop(item)
        return True

    def _settle(self, settled: Settled) -> None:
        """Wait until every episode has asked, so that what is in the queue then depends on no timing."""
        self._steps = 0
        request = next(iter((*self._active.values(), *self._waiting)))
        waiting: Future[bool] = Future()

        def begin() -> None:
            task = request.loop.create_task(_ask(settled, waiting))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

        with contextlib.suppress(RuntimeError, CancelledError):  # the loop is closed or about to be
            request.loop.call_soon_threadsafe(begin)
            self.broken_rounds += not waiting.result()

    def _drop(self, row: Row) -> None:
        requests = [self._active.pop(row, None), *(r for r in self._waiting if r.row is row)]
        for request in filter(None, requests):
            request.deliver(PolicyError("the conversation was closed while it was sampling"))
        self._waiting = [request for request in self._waiting if request.row is not row]
        self._resting.pop(row, None)
        self.scheduler.release(row)

    def _step(self) -> None:
        version = self.version
        self._steps += 1
        if self._renewed != version:
            self.scheduler.renew()
            self._renewed = version
        admitted = self._admitted()
        self._active.update({request.row: request for request in admitted})
        ready = [request.row for request in admitted]
        # New weights in the middle of a turn void the cached keys and values: these rows are run again as well.
        ready += [row for row in self._active if row.version != version and row not in ready]
        for row in ready:
            if row.version != version:
                row.cached, row.version = 0, version
        self._set_threads()
        if ready:
            self._secure(ready)
            ready = [row for row in ready if row in self._active]
            self.scheduler.extend(ready)
        elif self._active:
            self._secure(list(self._active))
            ready = list(self._active)
            self.scheduler.decode(ready)
        for row in ready:
            self._active[row].note(version)
        self._finish()

    def _set_threads(self) -> None:
        """Take every core for a model whose steps take long, and leave one to the event loop for a small one.

        In a long step the event loop finds the moments that environments need; where steps are short, the threads
        of a product would mostly wait for the one that it keeps from its core. Results depend on the number, so
        the number depends on no timing. It is partly global to the process: the learner sets its own, so the
        worker sets it again in every step, and leaves it alone while idle.
        """
        cores = self._cores if self.scheduler.heavy else max(1, self._cores - 1)
        if torch.get_num_threads() != cores:
            torch.set_num_threads(cores)

    def _admitted(self) -> list[Request]:
        """Dequeue the requests to run now.

        Extending a row (prefill) interrupts all decoding for a pass that costs about as much for one row as for
        several. So new requests wait a few steps to be batched, unless they are at least a quarter of the rows
        that decode already.
        """
        self._waiting = [request for request in self._waiting if not self._cancelled(request)]
        for request in self._waiting:
            request.waited += 1
        if self.settled is not None and self._steps > 1:
            return []
        patient = self.settled is None and all(request.waited < _WAIT_STEPS for request in self._waiting)
        if not self._waiting or (patient and len(self._waiting) * 4 < len(self._active)):
            return []
        ready: list[Request] = []
        while self._waiting and len(self._active) + len(ready) < self._concurrency:
            row = self._waiting[0].row
            if self._room(row):
                ready.append(self._waiting.pop(0))
            elif self._active or ready:
                break
            else:  # its own keys are in the way of its longer row
                self.scheduler.release(row)
        return ready

    def _room(self, row: Row) -> bool:
        """Return true if there is room for the row's next token, which rows that do not sample make."""
        while not self.scheduler.reserve(row, len(row.ids) + 1):
            idle = (*self._resting, *(request.row for request in reversed(self._waiting)))
            victim = next((other for other in idle if other.pool is not None and other is not row), None)
            if victim is None:
                return False
            self._resting.pop(victim, None)
            self.scheduler.release(victim)
        return True

    def _secure(self, rows: list[Row]) -> None:
        """Have room for each row's next token; where there is none, the newest rows wait and run again later."""
        for row in rows:
            while row in self._active and not self._room(row):
                last = next(reversed(self._active))
                self.scheduler.release(last)
                self._waiting.insert(0, self._active.pop(last))

    def _finish(self) -> None:
        for row, request in list(self._active.items()):
            if self._cancelled(request):
                del self._active[row]
            elif row.ended or len(row.sampled) >= row.params.max_tokens:
                del self._active[row]
                self._resting[row] = None
                self.tokens += len(row.sampled)
                self.completions += 1
                result = Sampled(
                    ids=row.sampled, logprobs=row.logprobs, ended=row.ended, spans=tuple(request.spans)
                )
                request.deliver(result)

    def _cancelled(self, request: Request) -> bool:
        """Return true if the request was cancelled; its row then stays idle until it is closed or evicted."""
        cancelled = request.future.cancelled()
        if cancelled and request.row.pool is not None:
            self._resting[request.row] = None
        return cancelled


async def _ask(settled: Settled, answer: Future[bool]) -> None:
    try:
        answer.set_result(await settled())
    except BaseException:
        answer.cancel()
        raise
