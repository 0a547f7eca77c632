"""Clusters: workers in other processes, or on other machines, that play a run's episodes."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, Self

import pydantic

from envgym.config import NamedSection, Section
from envgym.env.services import Services
from envgym.errors import UserError
from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry

__all__ = ["Cluster", "ClusterChoice", "ClusterWorker", "ServerProgram", "clusters"]


class ClusterWorker(Protocol):
    """One worker, as a run sees it."""

    async def call(self, method: str, episode: str, payload: str, *, seconds: float) -> str:
        """Call ``envgym.rollout.worker.EpisodeWorker.call``, and return its answer.

        Args:
            method: as there.
            episode: as there.
            payload: as there.
            seconds: time after which the worker counts as lost, and is replaced.

        Raises:
            WorkerLost: it died, its machine is gone, or it does not answer.
            EnvironmentFailure: it raised something that no episode accounts for.
        """


class ServerProgram(Section):
    """A program that serves over HTTP, to be started on machines of a cluster."""

    command: tuple[str, ...] = pydantic.Field(
        min_length=1,
        description="what starts one, a word each; {host} and {port} stand for where it is to listen",
        examples=[["vllm", "serve", "MODEL", "--host", "{host}", "--port", "{port}"]],
    )
    count: int = pydantic.Field(default=1, ge=1, description="how many")
    gpus: float = pydantic.Field(default=1.0, ge=0, description="GPUs that are set aside for each")
    environment: dict[str, str] = pydantic.Field(
        default_factory=dict, description="variables beside those of its machine"
    )
    start_seconds: float = pydantic.Field(default=900.0, gt=0, description="time to start, at first and anew")

    @pydantic.model_validator(mode="after")
    def _listens_where_it_is_told(self) -> Self:
        if not any("{port}" in word for word in self.command):
            raise ValueError("the command names no {port}, and would not listen where it is looked for")
        return self

    def words(self, host: str, port: int) -> list[str]:
        """Return the command of one that listens at ``host`` and ``port``."""
        return [word.replace("{host}", host).replace("{port}", str(port)) for word in self.command]


class Cluster(Plugin, abc.ABC):
    """Starts workers, hands them out, and replaces those that die.

    A worker is one process with an ``envgym.rollout.worker.EpisodeWorker``, which plays many episodes at once with
    the sandbox and the judge of its own machine.
    """

    @abc.abstractmethod
    async def open(self, services: Services) -> None:
        """Start the workers, each with services of its own like these.

        Raises:
            UserError: the cluster cannot be reached, has no room, or runs another version of envgym.
        """

    @abc.abstractmethod
    def worker(self) -> AbstractAsyncContextManager[ClusterWorker]:
        """Hand out the worker that plays the fewest episodes, for one more; wait while every one is restarting.

        Raises:
            WorkerLost: none is left.
        """

    async def serve(self, program: ServerProgram) -> list[str]:
        """Start servers, and start those anew, at the same address, that end; needs an open cluster.

        Returns:
            their addresses; every one answers.

        Raises:
            UserError: this cluster starts no servers, has no room for them, or one does not answer in time.
        """
        raise UserError(f"cluster: {type(self).__name__} starts no servers: start them, and name their addresses")

    @abc.abstractmethod
    async def close(self) -> None:
        """End workers and servers, and what they hold, sandboxes included. Safe to call twice."""


clusters: Registry[Cluster] = Registry("cluster", "envgym.clusters", "envgym.rollout.cluster:Cluster")
"""Every cluster that is installed or registered."""


class ClusterChoice(NamedSection):
    """A cluster's name with its settings beside it; ``cluster = "ray"`` is short for the name alone."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    name: str = pydantic.Field(
        default="", description="a cluster's name, or package.module:Class; empty plays episodes in this process"
    )

    @pydantic.model_validator(mode="after")
    def _settings_fit(self) -> Self:
        settings: dict[str, Any] = self.model_extra or {}
        if self.name:
            clusters.validate(self.name, settings)
        elif settings:
            known = ", ".join(clusters.plugins())
            raise ValueError(f"{', '.join(settings)}: settings need the cluster's name; allowed: {known}")
        return self

    @contextlib.asynccontextmanager
    async def opened(self, services: Services) -> AsyncIterator[Cluster | None]:
        """Open the cluster, if one is named, and close it at the end.

        Raises:
            UserError: it cannot be opened.
        """
        if not self.name:
            yield None
            return
        cluster = clusters.make(self.name, self.model_extra or {})
        try:
            await cluster.open(services)
            yield cluster
        finally:
            await cluster.close()
