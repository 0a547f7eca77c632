"""The in-process engine: one thread runs the model, any number of conversations await it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from envgym.errors import PolicyError
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.engine.sequences import Row

__all__ = ["Engine", "EngineSession", "Sampled"]

_WAIT_STEPS = 6
"""Decoding steps that a lone newcomer waits for company before it is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One completion."""

    ids: list[int]
    logprobs: list[float]
    ended: bool
    """The last id ends the turn; otherwise the token budget did."""
    version: int
    """The oldest weights that sampled one of ``ids``."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    row: Row
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Sampled]
    waited: int = 0
    version: int = 0
    """The oldest weights that sampled for it."""


class EngineSession:
    """One conversation's place in the engine. Its keys and values live from turn to turn."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._row = Row()

    @property
    def length(self) -> int:
        """Tokens the conversation holds."""
        return len(self._row.ids)

    def rewrite(self) -> None:
        """Forget the conversation: the next ``sample`` brings the whole prompt."""
        self._row.ids.clear()
        self._row.cached = 0

    async def sample(self, new_ids: list[int], *, max_tokens: int, temperature: float, seed: int) -> Sampled:
        """Append ``new_ids`` and sample up to ``max_tokens`` ids, until one that ends the turn.

        One call at a time. A session whose call was cancelled can only be closed.

        Raises:
            PolicyError: the engine stopped.
            ValueError: nothing to start from, no token asked for, or more than the engine's capacity.
        """
        row = self._row
        total = len(row.ids) + len(new_ids) + max_tokens
        if max_tokens < 1 or total == max_tokens or total > self._engine.capacity:
            raise ValueError(
                f"{len(row.ids)} + {len(new_ids)} ids and {max_tokens} to sample: at least one of each is needed, "
                f"and at most {self._engine.capacity} in all"
            )
        row.ids.extend(new_ids)
        row.sampled, row.logprobs, row.ended = [], [], False
        row.budget, row.temperature = max_tokens, temperature
        row.uniform = np.random.default_rng(seed).random(max_tokens)
        return await self._engine.submit(row)

    def close(self) -> None:
        """Give the cache row back; a call that still samples gets a ``PolicyError``. Safe to call twice."""
        self._engine.forget(self._row)


class Engine:
    """Samples completions of one model for many conversations, continuously batched.

    Args:
        model: a causal LM in evaluation mode. The engine reads its weights; whoever changes them does so while
            nothing is sampled, and then calls ``weights_changed``.
        slots: conversations that hold a cache row at once. More may be open: one that waits for its next turn
            gives its row to one that wants to sample, and is run again from its ids.
        capacity: tokens that a conversation can hold.
        stop_ids: ids that end a turn.

    Raises:
        UserError: the engine cannot run such a model.
    """

    def __init__(self, model: PreTrainedModel, *, slots: int, capacity: int, stop_ids: frozenset[int]) -> None:
        self.capacity = capacity
        self.version = 0
        self.tokens = 0
        """Sampled so far."""
        self._scheduler = Scheduler(model, slots=slots, capacity=capacity, stop_ids=stop_ids)
        self._inbox: queue.SimpleQueue[_Request | Row | None] = queue.SimpleQueue()
        self._waiting: list[_Request] = []
        self._active: dict[Row, _Request] = {}
        self._resting: dict[Row, None] = {}
        """Rows with a slot that nobody samples for, the longest rested first."""
        self._stopped: PolicyError | None = None
        # Tools and environments run while the model does: without a core of their own, both wait for each other.
        self._cores = max(1, torch.get_num_threads() - 1)
        self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
        self._thread.start()

    def open(self) -> EngineSession:
        """Begin a conversation."""
        return EngineSession(self)

    def weights_changed(self) -> None:
        """Count a new version. Conversations in flight are run again from their ids: no stale cache."""
        self.version += 1

    async def submit(self, row: Row) -> Sampled:
        """Have ``row`` sampled; used by sessions.

        Raises:
            PolicyError: the engine stopped.
        """
        loop = asyncio.get_running_loop()
        request = _Request(row=row, loop=loop, future=loop.create_future())
        self._inbox.put(request)
        # After the put: a request is either seen by the thread's last look at the inbox or refused here.
        self.check()
        return await request.future

    def check(self) -> None:
        """Raise ``PolicyError`` if the engine stopped: every episode from then on would be missing data."""
        if self._stopped is not None:
            raise PolicyError(str(self._stopped))

    def forget(self, row: Row) -> None:
        """Free what ``row`` holds; used by sessions."""
        self._inbox.put(row)

    def close(self) -> None:
        """End the thread; whoever still waits gets a ``PolicyError``. Safe to call twice."""
        self._inbox.put(None)
        self._thread.join()

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
            self._scheduler.release(row)

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
        ready += [row for row in self._active if row.version != version and row not in ready]
        for row in ready:
            if row.version != version:
                row.cached, row.version = 0, version
        if ready:
            self._scheduler.extend(ready)
        elif self._active:
            self._scheduler.decode(list(self._active))
        self._finish()

    def _admitted(self) -> list[_Request]:
        """Requests to run now. A few newcomers wait for company while others decode."""
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
        """See that the row has a slot: its own, a free one, or that of the row that has rested longest."""
        if row.slot < 0:
            if not self._scheduler.free_slots and self._resting:
                rested = next(iter(self._resting))
                del self._resting[rested]
                self._scheduler.release(rested)
            if self._scheduler.free_slots:
                self._scheduler.admit(row)
        return row.slot >= 0

    def _finish(self) -> None:
        for row, request in list(self._active.items()):
            if self._cancelled(request):
                del self._active[row]
            elif row.ended or len(row.sampled) >= row.budget:
                del self._active[row]
                self._resting[row] = None
                self.tokens += len(row.sampled)
                result = Sampled(ids=row.sampled, logprobs=row.logprobs, ended=row.ended, version=request.version)
                _deliver(request, result)

    def _cancelled(self, request: _Request) -> bool:
        """Whether nobody waits for it any more; its row then rests until it is closed."""
        cancelled = request.future.cancelled()
        if cancelled and request.row.slot >= 0:
            self._resting[request.row] = None
        return cancelled


def _deliver(request: _Request, result: Sampled | PolicyError) -> None:
    def settle() -> None:
        if request.future.done():
            return
        if isinstance(result, PolicyError):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)

    # A loop that was closed meanwhile has nobody left to tell.
    with contextlib.suppress(RuntimeError):
        request.loop.call_soon_threadsafe(settle)
