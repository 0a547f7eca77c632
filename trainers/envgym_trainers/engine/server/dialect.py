"""What a server must say, whatever its dialect, and what each dialect must translate."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from envgym.web.service import Answer
from envgym_trainers.engine.interface import SamplingParams
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["TokenRequest", "Dialect", "FinishReason", "LabelSpan", "TokenReply", "ServerStatus", "Ways"]


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    """Somebody stopped all that was under way; what was sampled until then is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """One request for tokens."""

    ids: Sequence[int]
    """The whole conversation so far. [T]"""
    params: SamplingParams
    seed: int
    stop_ids: Sequence[int]
    model: str
    """Name that the server knows the model by."""
    adapter: str
    """Name of the adapter; ``""`` for none."""
    label: str
    """Label of the weights, which no cache outlives."""


@dataclass(frozen=True, slots=True)
class LabelSpan:
    """Consecutive tokens that the weights of one label sampled."""

    label: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReply:
    """N sampled tokens."""

    ids: list[int]
    """[N], the id that stopped it included."""
    logprobs: list[float]
    """[N], in nats."""
    end: FinishReason
    spans: tuple[LabelSpan, ...]
    """Numbers of tokens that add up to N."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What a server says of itself."""

    models: Sequence[str]
    """Names that a request may ask for, the first one the server's own."""
    context: int | None
    """Maximum number of tokens in a conversation; ``None`` if it does not say."""
    label: str
    """What it calls its weights."""
    paused: bool = False
    asleep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How weights can get to a server: what stands in the way of each, ``""`` if nothing does."""

    disk: str
    lora: str
    notes: Mapping[str, str]
    """What else the server says of its configuration, for people."""


class Dialect(abc.ABC):
    """How one kind of server is spoken to. It has no state of its own."""

    name: ClassVar[str]
    url: ClassVar[str]
    """Address at which such a server listens where nothing else is said."""
    generate: ClassVar[str]
    """Path of requests for tokens."""
    start: ClassVar[str]
    """The command that starts one for training."""
    resume: ClassVar[str]
    """What ends a pause that somebody else began."""

    @abc.abstractmethod
    def body(self, ask: TokenRequest) -> dict[str, Any]:
        """Return the body of a request for tokens.

        Nothing but the temperature changes the distribution: what a model's files recommend is overruled.
        """

    @abc.abstractmethod
    def read(self, server: Server, answer: Answer) -> TokenReply:
        """Return what was sampled.

        Raises:
            Undecided: no whole answer; another attempt may bring one.
            UnfitServer: it lacks something that training needs.
        """

    @abc.abstractmethod
    async def status(self, server: Server) -> ServerStatus:
        """Ask the server what it is and does.

        Raises:
            ServerFailure: it is not there.
            UnfitServer: it does not tell.
        """

    @abc.abstractmethod
    async def version(self, server: Server) -> str:
        """Return the server's own version, if it is one of this dialect, and ``""`` if it is not."""

    @abc.abstractmethod
    async def ways(self, server: Server) -> Ways:
        """Find out, without changing anything, how weights can get there."""

    @abc.abstractmethod
    async def rename(self, server: Server, label: str) -> None:
        """Let the server call its weights ``label``."""

    @abc.abstractmethod
    def write(self, language_model: LanguageModel, place: Path) -> Path:
        """Write all weights below ``place`` in the form that ``load`` hands over, and return where."""

    @abc.abstractmethod
    async def load(self, server: Server, weights: Path, label: str) -> None:
        """Have the server take over ``weights``. What is under way goes on with them, its cache made anew."""

    @abc.abstractmethod
    async def load_adapter(self, server: Server, folder: Path, label: str) -> None:
        """Have the server take over an adapter under the name ``label``.

        What is under way is aborted: the caller asks again for the rest.
        """

    @abc.abstractmethod
    async def unload_adapter(self, server: Server, name: str) -> None:
        """Have the server forget an adapter that nobody asks for any more."""
