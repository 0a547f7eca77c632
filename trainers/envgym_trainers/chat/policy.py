"""Policies backed by a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic
from transformers import PreTrainedTokenizerBase

from envgym.chat.tool_formats import HermesFormat, ToolFormat
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.records import Message, Observation, ToolSpec, TurnTokens
from envgym.seeding import derive_seed
from envgym_trainers.chat.conversation import Conversation, stop_ids
from envgym_trainers.engine.in_process import Engine
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model

__all__ = ["EnginePolicy", "ModelPolicy"]

_MIN_ROOM = 4
"""Tokens: a completion with less room than this is not begun."""


class EnginePolicy(Policy):
    """Samples completions from an engine.

    Args:
        engine: samples.
        tokenizer: renders conversations; it needs a chat template.
        max_tokens: sampled tokens per turn at most.
        temperature: of sampling; 0 is greedy.
        tool_format: how the model writes tool calls.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        tool_format: ToolFormat | None = None,
    ) -> None:
        super().__init__()
        self._set_up(engine, tokenizer, max_tokens=max_tokens, temperature=temperature, tool_format=tool_format)

    def _set_up(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        temperature: float,
        tool_format: ToolFormat | None = None,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.tool_format = tool_format or HermesFormat()
        self.stops = stop_ids(tokenizer)

    @classmethod
    def over(
        cls, language_model: LanguageModel, *, slots: int, max_tokens: int, temperature: float
    ) -> tuple[Engine, EnginePolicy]:
        """An engine with ``slots`` conversations for ``language_model``, and the policy that uses it."""
        tokenizer = language_model.tokenizer
        engine = Engine(
            language_model.model,
            slots=slots,
            capacity=language_model.context,
            stop_ids=frozenset(stop_ids(tokenizer)),
        )
        return engine, cls(engine, tokenizer, max_tokens=max_tokens, temperature=temperature)

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _EngineSession(self, tools, seed)

    async def close(self) -> None:
        """Stop the engine."""
        self.engine.close()


class ModelPolicy(EnginePolicy):
    """A model from a folder, for evaluation: loads it and samples from it.

    Raises:
        UserError: the model cannot be loaded.
    """

    class Config(EnginePolicy.Config):
        """The model, and how it is sampled."""

        path: str = pydantic.Field(description="as model.path; a run's folder stands for its newest checkpoint")
        temperature: float = pydantic.Field(default=1.0, ge=0, description="of sampling; 0 is greedy")
        max_tokens: int = pydantic.Field(default=96, ge=1, description="sampled tokens per turn at most")
        context: int = pydantic.Field(default=512, ge=16, description="tokens of a whole conversation")
        concurrency: int = pydantic.Field(default=64, ge=1, description="conversations sampled at once")

    config: Config

    def __init__(self, **settings: Any) -> None:
        Policy.__init__(self, **settings)
        c = self.config
        language_model = load_model(ModelConfig(path=c.path, context=c.context))
        engine, policy = EnginePolicy.over(
            language_model, slots=c.concurrency, max_tokens=c.max_tokens, temperature=c.temperature
        )
        self._set_up(engine, policy.tokenizer, max_tokens=c.max_tokens, temperature=c.temperature)


class _EngineSession(PolicySession):
    def __init__(self, policy: EnginePolicy, tools: Sequence[ToolSpec], seed: int) -> None:
        self._policy = policy
        self._session = policy.engine.open()
        self._conversation = Conversation(policy.tokenizer, tools, policy.tool_format)
        self._seed = seed
        self._turn = 0

    async def act(self, observation: Observation) -> Completion:
        policy = self._policy
        prompt_ids, fork = self._conversation.prompt(observation.messages)
        if fork:
            self._session.rewrite()
        room = policy.engine.capacity - self._session.length - len(prompt_ids)
        if room < _MIN_ROOM:
            raise ContextFull
        self._turn += 1
        sampled = await self._session.sample(
            prompt_ids,
            max_tokens=min(policy.max_tokens, room),
            temperature=policy.temperature,
            seed=derive_seed("sampling", self._seed, self._turn),
        )
        text = self._conversation.sampled(sampled.ids, policy.stops)
        message = policy.tool_format.parse(text)
        if not sampled.ended:
            message = Message(role="assistant", content=message.content, tool_calls=message.tool_calls, cut=True)
        tokens = TurnTokens(
            prompt_ids=prompt_ids,
            completion_ids=sampled.ids,
            logprobs=sampled.logprobs,
            policy_version=sampled.version,
            fork=fork,
        )
        return Completion(message=message, tokens=tokens)

    async def close(self) -> None:
        self._session.close()
