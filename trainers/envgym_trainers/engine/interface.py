"""The interface of engines, which sample tokens for policies wherever the model runs.

It fits an engine in this process and a client of an inference server: ids go in, ids and log-probs come out,
weights are sent with their version, and a conversation is a session whose cache the engine may keep.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pydantic

from envgym.config import NamedSection
from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.records import VersionSpan
from envgym.rollout.cluster import Cluster
from envgym_trainers.models.language_model import LanguageModel

__all__ = [
    "Engine",
    "EngineChoice",
    "EngineSession",
    "EngineStatistics",
    "Sampled",
    "SamplingParams",
    "Settled",
    "VersionSpan",
    "engines",
]


Settled = Callable[[], Awaitable[bool]]
"""Waits until every open conversation has asked for a completion, or will not ask before another one has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The limits and the distribution of one completion."""

    max_tokens: int
    """Maximum length of the completion."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely id and reports its log-prob at temperature 1."""
    top_k: int = 0
    """Ids to choose from, the most likely ones; 0 is all."""
    top_p: float = 1.0
    """Smallest probability that the most likely ids must have together; the others are never drawn."""
    min_p: float = 0.0
    """Ids less likely than this share of the most likely one are never drawn."""
    stop: tuple[str, ...] = ()
    """Texts that end the completion; the ids that spell them are its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One completion of N tokens."""

    ids: list[int]
    """[N], the id that ended the turn included."""
    logprobs: list[float]
    """[N]: log-prob of each id under the distribution it was drawn from, temperature included, in nats."""
    ended: bool
    """True if the last id ends the turn; false if the token budget ended it."""
    spans: tuple[VersionSpan, ...]
    """Which weights sampled ``ids``, in order; the numbers of tokens add up to N."""

    @property
    def version(self) -> int:
        """Version of the oldest weights that sampled one of ``ids``."""
        return min(span.version for span in self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """Work done since the engine was made."""

    sampled_tokens: int
    completions: int
    """Number of calls of ``sample`` that returned."""


class EngineSession(abc.ABC):
    """One conversation. It keeps its ids, and the engine may keep their cache, from turn to turn.

    One call at a time. A session whose call was cancelled or failed can only be closed.
    """

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Number of tokens in the conversation, sampled ones included."""

    @abc.abstractmethod
    def rewrite(self) -> None:
        """Clear the conversation; the next ``sample`` brings the whole prompt."""

    @abc.abstractmethod
    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        """Append ``new_ids`` and sample until an id ends the turn, or up to ``params.max_tokens``.

        Every engine guarantees that log-probs are those of the distribution sampled from, as a plain forward pass
        over the whole conversation gives them; that a cache made by older weights is never read; and that
        cancelling the call frees its resources. Equal seeds give equal draws as far as the engine's arithmetic
        does not depend on the rest of its batch.

        Args:
            new_ids: ids between the conversation so far and the completion. [P]
            params: how to sample.
            seed: seed of the draws.

        Raises:
            PolicyError: the engine stopped or was closed; the episode is missing data.
            ValueError: an empty conversation, no tokens to sample, or more than the engine's capacity. The session
                is unchanged.
            RuntimeError: the session is sampling already, or its last call was cancelled or failed.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Free the conversation; a pending call raises ``PolicyError``. Safe to call twice."""


class Engine(Plugin, abc.ABC):
    """Samples completions of one language model for many conversations.

    It begins at version 0 with the weights of ``language_model``.

    Args:
        language_model: the model to sample from. An engine that runs this very object must not change it.
        concurrency: maximum number of conversations that sample at once; more may be open, and none may starve.
        settings: fields of ``Config``.

    Raises:
        UserError: the engine cannot run this model, or lacks a package.
    """

    truncates: ClassVar[bool] = False
    """Whether it samples by ``top_k``, ``top_p`` and ``min_p``, and stops at texts."""
    runs_model: ClassVar[bool] = True
    """Whether the engine runs the weights of ``language_model`` itself. It is then given a copy where it samples
    while they are trained; a client of a server says no, and saves the memory."""

    def __init__(self, *, language_model: LanguageModel, concurrency: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.language_model = language_model
        self.concurrency = concurrency

    @property
    def capacity(self) -> int:
        """Maximum number of tokens in a conversation."""
        return self.language_model.context

    @property
    @abc.abstractmethod
    def version(self) -> int:
        """Version of the weights that the next token is sampled from."""

    @abc.abstractmethod
    def open(self) -> EngineSession:
        """Begin a conversation."""

    @abc.abstractmethod
    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        """Sample from the weights of ``language_model`` from now on, and call them ``version``.

        After this returns, every token comes from the new weights: conversations in flight continue with them, and
        caches of older weights are dropped or run again. If the engine runs ``language_model`` itself, the caller
        has changed it already, while nothing was sampled.

        Args:
            language_model: a model of the architecture that the engine was made with; adapters may be added.
            version: a number that no other weights of this engine had.

        Raises:
            PolicyError: the engine stopped.
            UserError: these are not weights of the engine's model.
        """

    async def rest(self) -> None:
        """Free what memory can be, because nothing will be sampled for a while; the base class frees none.

        Conversations go on afterwards as if nothing had happened.

        Raises:
            PolicyError: the engine stopped.
        """

    @classmethod
    async def place(cls, settings: Mapping[str, Any], cluster: Cluster | None) -> Mapping[str, Any]:
        """Start on a cluster what the engine needs, and return the settings to make it with.

        Args:
            settings: as the recipe has them.
            cluster: the recipe's, opened; it ends what was started.

        Raises:
            UserError: there is no cluster, or it cannot start it.
        """
        return settings

    def follow(self, settled: Settled) -> None:
        """Begin completions only after ``settled`` returned, in an order that the arguments of ``sample`` decide.

        What shares a batch then depends on the conversations and not on their timing, so that equal runs are equal
        bit for bit. The base class ignores it, as an engine may whose arithmetic is not reproducible anyway.
        """

    @abc.abstractmethod
    def statistics(self) -> EngineStatistics:
        """Return the counts of work done so far."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raise if the engine died, because every later episode would be missing data.

        Raises:
            PolicyError: the engine stopped; the message says why.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop the engine; pending calls raise ``PolicyError``. Safe to call twice."""


engines: Registry[Engine] = Registry("engine", "envgym.engines", "envgym_trainers.engine.interface:Engine")
"""Every engine that is installed or registered."""


class EngineChoice(NamedSection):
    """An engine's name with its settings beside it; ``engine = "in_process"`` is short for the name alone."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    name: str = pydantic.Field(default="in_process", description="an engine's name, or package.module:Class")

    @pydantic.model_validator(mode="after")
    def _settings_fit(self) -> Self:
        engines.validate(self.name, self.model_extra or {})
        return self

    @property
    def runs_model(self) -> bool:
        """See ``Engine.runs_model``."""
        return engines.load(self.name).runs_model

    def make(self, *, language_model: LanguageModel, concurrency: int) -> Engine:
        """Make the engine; arguments and errors are those of ``Engine``."""
        return engines.make(
            self.name, self.model_extra or {}, language_model=language_model, concurrency=concurrency
        )

    async def placed(self, cluster: Cluster | None) -> Self:
        """Have the cluster start what the engine needs; see ``Engine.place``."""
        settings: dict[str, Any] = self.model_extra or {}
        return type(self)(name=self.name, **await engines.load(self.name).place(settings, cluster))
