"""The engine of servers, whatever their dialect."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic

from envgym.errors import EnvgymError, PolicyError, UserError
from envgym.rollout.cluster import Cluster, ServerProgram
from envgym_trainers.engine.interface import Engine, EngineSession, EngineStatistics, Sampled, SamplingParams
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.engine.server.dialect import Dialect
from envgym_trainers.engine.server.labels import Labels
from envgym_trainers.engine.server.publisher import Publisher, default_tolerance
from envgym_trainers.engine.server.sampler import Sampler
from envgym_trainers.engine.server.session import ServerSession
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["ServerEngine", "key_in"]

_COMPARED = 512
"""Tokens of a conversation that the next comparison begins with."""
_RELEASE_SECONDS = 2.0


class ServerEngine(Engine):
    """Samples from one or several replicas; a conversation stays with the server that has its beginning cached.

    Nothing is asked of a server before the first completion or the first new weights. Its arithmetic depends
    on what shares a batch, so runs are not equal bit for bit.

    Raises:
        UserError: an address is none, the variable of the key holds none, nothing can be written to the folder, or
            there are servers that nobody started.
    """

    dialect: ClassVar[Dialect]
    runs_model = False

    class Config(Engine.Config):
        """How weights get to the servers, and when to give up on one."""

        urls: tuple[str, ...] | None = pydantic.Field(
            default=None,
            min_length=1,
            description="addresses of the servers, replicas of one model; if left out, the one at which such a "
            "server listens on this machine",
        )
        servers: ServerProgram | None = pydantic.Field(
            default=None, description="servers that the recipe's cluster starts and keeps, in place of urls"
        )
        model: str = pydantic.Field(
            default="", description="name the servers know the model by; theirs if left out"
        )
        publish: Literal["disk", "lora"] = pydantic.Field(
            default="disk", description="what is handed over after a step: all weights, or the adapters alone"
        )
        folder: str = pydantic.Field(
            default="",
            description="where weights are written for the servers to read; a temporary folder, which servers on "
            "this machine can read, if left out",
        )
        timeout: float = pydantic.Field(default=300.0, gt=0, description="seconds for one request")
        tolerance: float | None = pydantic.Field(
            default=None,
            gt=0,
            description="mean difference between log-probs of server and trainer, in nats, above which the run "
            "stops; 1e-3 for float32 and 2e-2 for 16 bits if left out",
        )
        key_env: str = pydantic.Field(
            default="ENVGYM_API_KEY", description="variable that holds the servers' key, if they want one"
        )
        take_over: bool = pydantic.Field(
            default=False, description="publish to servers that a trainer on another machine left; it must be dead"
        )

        @pydantic.model_validator(mode="after")
        def _one_way_to_a_server(self) -> Self:
            if self.urls and self.servers:
                raise ValueError("urls and servers exclude each other: name the one or have the others started")
            return self

    config: Config

    @classmethod
    async def place(cls, settings: Mapping[str, Any], cluster: Cluster | None) -> Mapping[str, Any]:
        """Have the cluster start the servers, if it is to; see ``Engine.place``."""
        config = cls.Config(**settings)
        if config.servers is None:
            return settings
        if cluster is None:
            raise UserError("engine.servers are started on a cluster: name one, cluster.name = 'ray', or set urls")
        urls = await cluster.serve(config.servers)
        return {**{name: value for name, value in settings.items() if name != "servers"}, "urls": urls}

    def __init__(self, *, language_model: LanguageModel, concurrency: int, **settings: Any) -> None:
        super().__init__(language_model=language_model, concurrency=concurrency, **settings)
        c = self.config
        if c.servers is not None:
            raise UserError("engine.servers are started for a recipe that trains: name urls here")
        key = key_in(c.key_env)
        self._servers = [
            Server(url, generate=self.dialect.generate, start=self.dialect.start, timeout=c.timeout, key=key)
            for url in c.urls or (self.dialect.url,)
        ]
        labels = Labels()
        self._folder = _new_folder(c.folder)
        self._sampler = Sampler(self.dialect, language_model, labels, exact=c.publish == "lora")
        self._publisher = Publisher(
            self.dialect,
            self._sampler,
            language_model,
            labels,
            folder=self._folder,
            adapters=c.publish == "lora",
            tolerance=c.tolerance or default_tolerance(language_model),
            take_over=c.take_over,
            model=c.model,
        )
        self._version = self._tokens = self._completions = 0
        self._begun = self._closed = False
        self._turns = asyncio.Semaphore(concurrency)
        self._publishing = asyncio.Lock()
        self._sessions: set[ServerSession] = set()

    @property
    def version(self) -> int:
        """Version of the weights that the next token is sampled from."""
        return self._version

    def open(self) -> EngineSession:
        """Begin a conversation with the server that has the fewest, of those that are up."""
        server = min(self._servers, key=lambda server: (server.failure is not None, server.conversations))

        async def complete(ids: list[int], params: SamplingParams, seed: int) -> Sampled:
            return await self._complete(server, ids, params, seed)

        def ended(session: ServerSession) -> None:
            server.conversations -= 1
            self._sessions.discard(session)

        server.conversations += 1
        session = ServerSession(complete, self.capacity, ended)
        self._sessions.add(session)
        return session

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        """Hand the weights to all servers, which keep what is under way; see ``Engine.update_weights``.

        Raises:
            PolicyError: the engine was closed, or a server did not take the weights.
            UserError: these are not weights of the engine's model, or a server cannot be trained against: it
                reports other log-probs than the trainer, another trainer uses it, or it takes no weights.
        """
        self._check_open()
        async with self._publishing:
            await self._publisher.publish(self._servers, language_model, version)
            self._version, self._begun = version, True

    def statistics(self) -> EngineStatistics:
        """Return the counts of work done so far."""
        return EngineStatistics(sampled_tokens=self._tokens, completions=self._completions)

    def check(self) -> None:
        """Raise ``PolicyError`` if the engine was closed, or no server is left."""
        self._check_open()
        failures = [server.failure for server in self._servers if server.failure is not None]
        if len(failures) == len(self._servers):
            raise failures[0]

    async def close(self) -> None:
        """End all conversations and leave the servers to others. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for session in list(self._sessions):
            await session.close()
        for server in self._servers:
            with contextlib.suppress(EnvgymError, TimeoutError):
                if server.failure is None:
                    async with asyncio.timeout(_RELEASE_SECONDS):
                        await self._publisher.release(server)
            await server.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _complete(self, server: Server, ids: list[int], params: SamplingParams, seed: int) -> Sampled:
        if not self._begun:
            async with self._publishing:
                if not self._begun:
                    await self._publisher.begin(self._servers, self._version)
                    self._begun = True
        async with self._turns:
            sampled = await self._sampler.complete(server, ids, params, seed)
        self._publisher.prompt = ids[:_COMPARED]
        self._tokens += len(sampled.ids)
        self._completions += 1
        return sampled

    def _check_open(self) -> None:
        if self._closed:
            raise PolicyError("the engine was closed")


def _new_folder(parent: str) -> Path:
    """Make a folder of one's own in ``parent``, or in that of temporary files.

    Raises:
        UserError: it cannot be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix="envgym-weights-", dir=parent or None))
    except OSError as error:
        raise UserError(f"engine.folder: nothing can be written to {parent!r}: {error.strerror}") from None


def key_in(variable: str) -> str:
    """Return the key that a variable of the environment holds; ``""`` for none.

    Raises:
        UserError: no header can hold it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{variable} holds characters that no HTTP header may hold")
    return key
