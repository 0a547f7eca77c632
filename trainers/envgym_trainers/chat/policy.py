"""Policies that sample from an engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic

from envgym.errors import UserError
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.records import Observation, ToolSpec, TurnTokens
from envgym.seeding import derive_seed
from envgym_trainers.chat.conversation import Conversation
from envgym_trainers.engine.interface import Engine, EngineChoice, SamplingParams
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.models.placement import Device, Dtype

__all__ = ["EnginePolicy", "ModelPolicy"]

_MIN_ROOM = 4
"""Minimum number of free tokens to begin a completion."""


class EnginePolicy(Policy):
    """Samples completions from an engine, which the caller closes.

    Args:
        engine: samples the completions.
        language_model: renders conversations and reads tool calls; the engine runs it, or a copy of it.
        settings: fields of ``Config``.
    """

    class Config(Policy.Config):
        """Sampling of completions."""

        temperature: float = pydantic.Field(default=1.0, ge=0, description="of sampling; 0 is greedy")
        max_tokens: int | None = pydantic.Field(
            default=None,
            ge=1,
            description="sampled tokens per turn at most; if left out, what the model's generation configuration "
            "says, or as many as the context has room for",
        )
        top_k: int = pydantic.Field(default=0, ge=0, description="ids to choose from, the likeliest; 0 is all")
        top_p: float = pydantic.Field(
            default=1.0,
            gt=0,
            le=1,
            description="share of the probability that the likeliest ids to choose from have",
        )
        min_p: float = pydantic.Field(
            default=0.0, ge=0, le=1, description="an id less likely than this share of the likeliest is not drawn"
        )
        stop: tuple[Annotated[str, pydantic.Field(min_length=1, max_length=200)], ...] = pydantic.Field(
            default=(), max_length=16, description="texts that end a turn"
        )

    config: Config

    def __init__(self, *, engine: Engine, language_model: LanguageModel, **settings: Any) -> None:
        super().__init__(**settings)
        c = self.config
        if (c.top_k or c.top_p < 1 or c.min_p or c.stop) and not engine.truncates:
            raise UserError(
                f"{type(engine).__name__} samples from the whole distribution and stops at no texts: leave out "
                "top_k, top_p, min_p and stop, or sample with the in-process engine"
            )
        self.engine = engine
        self.language_model = language_model
        self.max_tokens = self.config.max_tokens or language_model.turn_limit

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _EngineSession(self, tools, seed)


class ModelPolicy(Policy):
    """Loads a model from a folder and samples from it, for evaluation.

    Raises:
        UserError: the model cannot be loaded.
    """

    class Config(EnginePolicy.Config):
        """The model, its engine, and the sampling of completions."""

        path: str = pydantic.Field(description="as model.path; a run's folder stands for its newest checkpoint")
        context: int | None = pydantic.Field(default=None, ge=16, description="as model.context")
        concurrency: int = pydantic.Field(default=64, ge=1, description="conversations sampled at once")
        device: Device = pydantic.Field(default="auto", description="as model.device")
        dtype: Dtype = pydantic.Field(default="float32", description="as model.dtype")
        tool_format: str = pydantic.Field(default="auto", description="as model.tool_format")
        engine: EngineChoice = pydantic.Field(default_factory=EngineChoice, description="as the recipe's [engine]")

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        c = self.config
        self.language_model = load_model(
            ModelConfig(path=c.path, context=c.context, device=c.device, dtype=c.dtype, tool_format=c.tool_format),
            conversations=c.concurrency,
        )
        self._engine = c.engine.make(language_model=self.language_model, concurrency=c.concurrency)
        self._policy = EnginePolicy(
            engine=self._engine,
            language_model=self.language_model,
            **c.model_dump(include=set(EnginePolicy.Config.model_fields)),
        )

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return self._policy.open(tools, seed)

    @property
    def limits(self) -> dict[str, int]:
        """The limits it samples under."""
        return {"context": self.language_model.context, "max_tokens": self._policy.max_tokens}

    async def close(self) -> None:
        """Stop the engine. Safe to call twice."""
        await self._engine.close()


class _EngineSession(PolicySession):
    def __init__(self, policy: EnginePolicy, tools: Sequence[ToolSpec], seed: int) -> None:
        self._max_tokens = policy.max_tokens
        self._config = policy.config
        self._capacity = policy.engine.capacity
        self._session = policy.engine.open()
        self._stops = policy.language_model.stop_ids
        self._conversation = Conversation(
            policy.language_model.tokenizer, tools, policy.language_model.tool_format
        )
        self._seed = seed
        self._turn = 0

    async def act(self, observation: Observation) -> Completion:
        prompt_ids, fork = self._conversation.prompt(observation.messages)
        if fork:
            self._session.rewrite()
        room = self._capacity - self._session.length - len(prompt_ids)
        if room < _MIN_ROOM:
            raise ContextFull
        self._turn += 1
        sampled = await self._session.sample(
            prompt_ids,
            SamplingParams(
                max_tokens=min(self._max_tokens, room),
                temperature=self._config.temperature,
                top_k=self._config.top_k,
                top_p=self._config.top_p,
                min_p=self._config.min_p,
                stop=self._config.stop,
            ),
            seed=derive_seed("sampling", self._seed, self._turn),
        )
        self._conversation.sampled(sampled.ids, self._stops)
        message = self._conversation.message
        if not sampled.ended:
            cut_by: Literal["tokens", "context"] = "context" if room < self._max_tokens else "tokens"
            message = dataclasses.replace(message, cut=True, cut_by=cut_by)
        tokens = TurnTokens(
            prompt_ids=prompt_ids,
            completion_ids=sampled.ids,
            logprobs=sampled.logprobs,
            policy_version=sampled.version,
            fork=fork,
            spans=list(sampled.spans) if len(sampled.spans) > 1 else [],
        )
        return Completion(message=message, tokens=tokens)

    async def close(self) -> None:
        await self._session.close()
