"""An engine that puts the shipped one behind it, and keeps completions short."""

from __future__ import annotations

import dataclasses
from typing import Any

import pydantic

from envgym_trainers.engine.interface import (
    Engine,
    EngineSession,
    EngineStatistics,
    Sampled,
    SamplingParams,
    engines,
)
from envgym_trainers.models.language_model import LanguageModel


class Brief(Engine):
    """Samples at most ``longest`` tokens a turn, whatever is asked for."""

    class Config(Engine.Config):
        """Settings of ``Brief``."""

        longest: int = pydantic.Field(default=1000, ge=1)

    config: Config

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        model, concurrency = self.language_model, self.concurrency
        self._behind = engines.make("in_process", language_model=model, concurrency=concurrency)

    @property
    def version(self) -> int:
        """Version of the weights."""
        return self._behind.version

    def open(self) -> EngineSession:
        """Begin a conversation."""
        return _Session(self._behind.open(), self.config.longest)

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        """Pass new weights on."""
        await self._behind.update_weights(language_model, version)

    def statistics(self) -> EngineStatistics:
        """Count the work done so far."""
        return self._behind.statistics()

    def check(self) -> None:
        """Notice an engine that died."""
        self._behind.check()

    async def close(self) -> None:
        """Stop."""
        await self._behind.close()


class _Session(EngineSession):
    def __init__(self, behind: EngineSession, longest: int) -> None:
        self._behind = behind
        self._longest = longest

    @property
    def length(self) -> int:
        return self._behind.length

    def rewrite(self) -> None:
        self._behind.rewrite()

    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        budget = min(params.max_tokens, self._longest)
        return await self._behind.sample(new_ids, dataclasses.replace(params, max_tokens=budget), seed=seed)

    async def close(self) -> None:
        await self._behind.close()
