"""The in-process engine: runs a causal LM of transformers in a thread of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import torch

from envgym_trainers.engine.cache import Row
from envgym_trainers.engine.checks import check_room, check_shapes
from envgym_trainers.engine.interface import (
    Engine,
    EngineSession,
    EngineStatistics,
    Sampled,
    SamplingParams,
    Settled,
)
from envgym_trainers.engine.loop import SamplingLoop
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.models.context import cache_memory
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["InProcessEngine"]


class InProcessEngine(Engine):
    """Continuous batching over one cache row per conversation; shared prefixes are run once.

    The trainer may update the very model that the engine runs; an engine with a model of its own copies new
    weights.
    """

    truncates = True

    class Config(Engine.Config):
        """Size of the cache."""

        memory: float | None = pydantic.Field(
            default=None,
            gt=0,
            description="GiB that keys and values may take, a quarter of the device's if left out; idle "
            "conversations lose theirs first, and are run again",
        )

    config: Config

    def __init__(self, *, language_model: LanguageModel, concurrency: int, **settings: Any) -> None:
        super().__init__(language_model=language_model, concurrency=concurrency, **settings)
        memory = self.config.memory
        scheduler = Scheduler(
            language_model.model,
            memory=cache_memory(language_model.device) if memory is None else int(memory * 2**30),
            capacity=self.capacity,
            ends=_Ends(language_model),
        )
        self._loop = SamplingLoop(scheduler, concurrency)

    @property
    def version(self) -> int:
        """Version of the weights that the next token is sampled from."""
        return self._loop.version

    def open(self) -> EngineSession:
        """Begin a conversation. Between its turns it may lose its cache row, and is then run again."""
        return _Session(self._loop, self.capacity)

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        """Set the new version, after copying the weights unless the engine runs that very model."""
        if language_model.model is self.language_model.model:
            self.check()
            self._loop.version = version
            return
        new, own = language_model.weights(), self.language_model.model.state_dict()
        check_shapes({n: t.shape for n, t in new.items()}, {n: t.shape for n, t in own.items()})

        def copy() -> None:
            with torch.no_grad():
                for name, tensor in own.items():
                    tensor.copy_(new[name])
            self._loop.version = version

        await self._loop.between_steps(copy)

    def follow(self, settled: Settled) -> None:
        """Admit conversations to the batch at fixed points, where ``settled`` says that all have asked."""
        self._loop.settled = settled

    async def rest(self) -> None:
        """Free keys, values and packed weights until something is sampled again."""
        await self._loop.rest()

    def statistics(self) -> EngineStatistics:
        """Return the counts of work done so far."""
        return EngineStatistics(sampled_tokens=self._loop.tokens, completions=self._loop.completions)

    def check(self) -> None:
        """Raise ``PolicyError`` if the thread stopped."""
        self._loop.check()

    async def close(self) -> None:
        """Stop the thread; pending calls raise ``PolicyError``. Safe to call twice."""
        await self._loop.close()


class _Ends:
    """Whether what a row has sampled ends its turn: an id of the model's, or a text that the caller named."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._ids = frozenset(language_model.stop_ids)
        self._tokenizer = language_model.tokenizer

    def __call__(self, row: Row) -> bool:
        if row.sampled[-1] in self._ids:
            return True
        if not row.params.stop:
            return False
        # No token is less than a byte, and no character more than four.
        longest = 4 * max(map(len, row.params.stop)) + 4
        text = str(self._tokenizer.decode(row.sampled[-longest:]))
        return any(stop in text for stop in row.params.stop)


class _Session(EngineSession):
    """One conversation in the engine."""

    def __init__(self, loop: SamplingLoop, capacity: int) -> None:
        self._loop = loop
        self._capacity = capacity
        self._row = Row()
        self._busy = False
        """True while a call runs, and for good after one was cancelled or failed."""

    @property
    def length(self) -> int:
        return len(self._row.ids)

    def rewrite(self) -> None:
        self._row.ids.clear()
        self._row.cached = 0

    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        row, max_tokens = self._row, params.max_tokens
        if self._busy:
            raise RuntimeError("a session samples once at a time, and not after a call was cancelled or failed")
        check_room(len(row.ids), len(new_ids), max_tokens, self._capacity)
        self._busy = True
        row.ids.extend(new_ids)
        row.sampled, row.logprobs, row.ended = [], [], False
        row.params = params
        row.order = seed
        row.uniform = np.random.default_rng(seed).random(max_tokens)
        sampled = await self._loop.sample(row)
        self._busy = False
        return sampled

    async def close(self) -> None:
        self._loop.forget(self._row)
