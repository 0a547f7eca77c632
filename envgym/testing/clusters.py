"""The contract of clusters, as tests, and a cluster without other processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import pydantic
import pytest

from envgym.env.services import Services
from envgym.errors import WorkerLost
from envgym.policies.scripted import Expert, Player, RandomPolicy
from envgym.records import Trajectory, to_json
from envgym.rollout.cluster import Cluster, clusters
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry
from envgym.rollout.worker import EpisodeWorker

__all__ = ["ClusterContract", "InProcessCluster"]

_TASKS = 3
_AT_ONCE = 8


class InProcessCluster(Cluster):
    """Workers in this process and event loop: what crosses to other processes is text here, too."""

    class Config(Cluster.Config):
        """How many."""

        workers: int = pydantic.Field(default=2, ge=1, description="workers that play episodes")

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.workers: list[InProcessWorker] = []

    async def open(self, services: Services) -> None:
        """Make the workers; see ``Cluster.open``."""
        self.workers = [InProcessWorker(services.to_json()) for _ in range(self.config.workers)]

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[InProcessWorker]:
        """Hand out the least busy worker; see ``Cluster.worker``."""
        chosen = min(self.workers, key=lambda worker: worker.busy)
        chosen.busy += 1
        try:
            yield chosen
        finally:
            chosen.busy -= 1

    async def close(self) -> None:
        """Close the workers; see ``Cluster.close``."""
        workers, self.workers = self.workers, []
        for worker in workers:
            await worker.close()


class InProcessWorker:
    """A worker of an ``InProcessCluster``. It can die, and is then started anew at once.

    Args:
        services: ``Services.to_json()``.
    """

    def __init__(self, services: str) -> None:
        self.busy = 0
        self._services = services
        self._worker = EpisodeWorker(Services.from_json(services))
        self._calls: set[asyncio.Task[str]] = set()

    async def call(self, method: str, episode: str, payload: str, *, seconds: float) -> str:
        """Call the worker; see ``envgym.rollout.cluster.Worker``."""
        call = asyncio.create_task(self._worker.call(method, episode, payload))
        self._calls.add(call)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(call)
        except asyncio.CancelledError:
            if call.cancelled():  # not the caller, who would be cancelled himself
                raise WorkerLost("the worker died") from None
            raise
        except TimeoutError:
            await self.die()
            raise WorkerLost(f"the worker did not answer within {seconds:g} s") from None
        finally:
            self._calls.discard(call)

    async def die(self) -> None:
        """End it with everything it plays, and start another in its place."""
        for call in self._calls:
            call.cancel()
        dead, self._worker = self._worker, EpisodeWorker(Services.from_json(self._services))
        await dead.close()

    async def close(self) -> None:
        """Close the worker."""
        await self._worker.close()


class ClusterContract:
    """Test that episodes on a cluster are those of one process, that many run at once, and that nothing is left.

    A subclass sets:
        cluster: name of the cluster, or ``"package.module:Class"``.
        settings: fields of its ``Config``.
        env: an environment with an expert, without a sandbox.
    """

    cluster: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    env: ClassVar[str] = "math_problems"

    @pytest.fixture
    async def opened(self) -> AsyncIterator[Cluster]:
        """Open the cluster, and close it at the end."""
        made = clusters.make(self.cluster, self.settings)
        services = Services()
        try:
            await made.open(services)
            yield made
        finally:
            await made.close()
            await services.close()

    async def test_episodes_are_those_of_one_process(self, opened: Cluster) -> None:
        """Equal to the last character, for a policy that acts here, and for the expert, who plays beside it."""
        for player in (RandomPolicy(), Expert()):
            assert await self._played(player, opened) == await self._played(player, None)

    async def test_a_cancelled_episode_ends_and_the_worker_plays_on(self, opened: Cluster) -> None:
        """Cancel an episode that has just begun, and play the same task again."""
        collector = self._collector(Expert(), opened)
        (task, *_) = collector.tasks("e", "train")
        playing = asyncio.create_task(collector.episode("e", task, 0))
        await asyncio.sleep(0)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert (await collector.episode("e", task, 0)).reward > 0
        await collector.close()

    async def test_closing_twice_is_safe_and_opens_again(self, opened: Cluster) -> None:
        """Play every task after a second opening."""
        await opened.close()
        await opened.close()
        await opened.open(Services())
        assert len(await self._played(Expert(), opened)) == _TASKS * _AT_ONCE

    async def _played(self, player: Player, cluster: Cluster | None) -> list[str]:
        collector = self._collector(player, cluster)
        tasks = list(collector.tasks("e", "train"))[:_TASKS]
        groups = await asyncio.gather(*(collector.group("e", task, _AT_ONCE) for task in tasks))
        await collector.close()
        played: list[Trajectory] = [t for group in groups for t in group.trajectories]
        assert not any(t.failed for t in played), played[0].outcome
        return [to_json(t) for t in played]

    def _collector(self, player: Player, cluster: Cluster | None) -> Collector:
        return Collector([MixEntry(env=self.env, name="e")], player, Services(), retries=0, cluster=cluster)
