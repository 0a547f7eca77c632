"""The in-process engine: one thread runs the model, any number of conversations await it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from envgym.errors import PolicyError
from envgym_trainers.engine.scheduler import Row, Scheduler

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


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    row: Row
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Sampled]
    waited: int = 0


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

        Raises:
            PolicyError: the engine stopped.
        """
        row = self._row
        row.ids.extend(new_ids)
        row.sampled, row.logprobs, row.ended = [], [], False
        row.budget, row.temperature = max_tokens, temperature
        row.uniform = np.random.default_rng(seed).random(max_tokens)
        return await self._engine.submit(row)

    def close(self) -> None:
        """Give the cache row back. Safe to call twice."""
        self._engine.forget(self._row)


class Engine:
    """Samples completions of one model for many conversations, continuously batched.

    Args:
        model: a causal LM; the engine reads its weights, whoever changes them.
        slots: conversations that hold a cache row at once; more than that wait.
        capacity: tokens that a conversation can hold.
        stop_ids: ids that end a turn.
    """

    def __init__(self, model: PreTrainedModel, *, slots: int, capacity: int, stop_ids: frozenset[int]) -> None:
        self.capacity = capacity
        self.version = 0
        self.tokens = 0
        self.busy_seconds = 0.0
        self._scheduler = Scheduler(model, slots=slots, capacity=capacity, stop_ids=stop_ids)
        self._inbox: queue.SimpleQueue[_Request | Row | None] = queue.SimpleQueue()
        self._waiting: list[_Request] = []
        self._active: dict[Row, _Request] = {}
        self._error: BaseException | None = None
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
        if self._error is not None or not self._thread.is_alive():
            raise PolicyError(f"the engine stopped: {self._error}")
        loop = asyncio.get_running_loop()
        request = _Request(row=row, loop=loop, future=loop.create_future())
        self._inbox.put(request)
        return await request.future

    def forget(self, row: Row) -> None:
        """Free what ``row`` holds; used by sessions."""
        self._inbox.put(row)

    def close(self) -> None:
        """End the thread; whoever still waits gets a ``PolicyError``. Safe to call twice."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._receive():
                started = time.monotonic()
                self._step()
                self.busy_seconds += time.monotonic() - started
        except BaseException as error:  # noqa: BLE001 - every waiting conversation is told
            self._error = error
        reason = PolicyError(f"the engine stopped: {self._error or 'it was closed'}")
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, _Request):
                self._waiting.append(item)
        for request in (*self._waiting, *self._active.values()):
            _deliver(request, reason)

    def _receive(self) -> bool:
        """Take in everything that arrived; block only when there is nothing to run."""
        block = not self._active and not self._waiting
        while block or not self._inbox.empty():
            item = self._inbox.get()
            block = False
            if item is None:
                return False
            if isinstance(item, _Request):
                self._waiting.append(item)
            else:
                self._drop(item)
        return True

    def _drop(self, row: Row) -> None:
        self._active.pop(row, None)
        self._waiting = [request for request in self._waiting if request.row is not row]
        if row.slot >= 0:
            self._scheduler.release(row)

    def _step(self) -> None:
        ready = self._admitted()
        if ready:
            self._scheduler.extend([request.row for request in ready])
            self._active.update({request.row: request for request in ready})
        else:
            rows = list(self._active)
            if not rows:
                return
            self._scheduler.decode(rows)
        self._finish()

    def _admitted(self) -> list[_Request]:
        """Requests to run now. A few newcomers wait for company while others decode."""
        self._waiting = [request for request in self._waiting if not request.future.cancelled()]
        for request in self._waiting:
            request.waited += 1
        patient = all(request.waited < _WAIT_STEPS for request in self._waiting)
        if not self._waiting or (patient and len(self._waiting) * 4 < len(self._active)):
            return []
        ready, later = [], []
        for request in self._waiting:
            row = request.row
            if row.slot < 0 and self._scheduler.free_slots:
                self._scheduler.admit(row)
            if row.slot < 0:
                later.append(request)
                continue
            if row.version != self.version:
                row.cached, row.version = 0, self.version
            ready.append(request)
        self._waiting = later
        return ready

    def _finish(self) -> None:
        for row, request in list(self._active.items()):
            if request.future.cancelled():
                del self._active[row]
            elif row.ended or len(row.sampled) >= row.budget:
                del self._active[row]
                self.tokens += len(row.sampled)
                result = Sampled(ids=row.sampled, logprobs=row.logprobs, ended=row.ended, version=row.version)
                _deliver(request, result)


def _deliver(request: _Request, result: Sampled | PolicyError) -> None:
    def settle() -> None:
        if request.future.done():
            return
        if isinstance(result, PolicyError):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)

    if not request.loop.is_closed():
        request.loop.call_soon_threadsafe(settle)
