"""Clusters: workers in other processes, or on other machines, that play a run's episodes."""

from __future__ import annotations

import abc
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, Self

import pydantic

from envgym.config import NamedSection
from envgym.env.services import Services
from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry

__all__ = ["Cluster", "ClusterChoice", "ClusterWorker", "clusters"]


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

    @abc.abstractmethod
    async def close(self) -> None:
        """End the workers and what they hold, sandboxes included. Safe to call twice."""


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

    def make(self) -> Cluster | None:
        """Make the cluster, if one is named; the caller opens and closes it."""
        return clusters.make(self.name, self.model_extra or {}) if self.name else None
