"""Ray places workers over machines, and starts those anew that die."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pydantic

from envgym.env.services import Services
from envgym.errors import UserError, WorkerLost
from envgym.rollout.cluster import Cluster, ServerProgram
from envgym_clusters.ray.session import RaySession

if TYPE_CHECKING:
    from envgym_clusters.ray.server import RayServer
    from envgym_clusters.ray.worker import RayWorker

__all__ = ["RayCluster"]

_PLACING_SECONDS = 30.0
"""Time for Ray to find a machine for a server."""


class RayCluster(Cluster):
    """Workers as Ray actors, on this machine or on those of a running Ray cluster."""

    class Config(Cluster.Config):
        """Where the workers run, and how many."""

        workers: int = pydantic.Field(default=4, ge=1, description="processes that play episodes")
        address: str = pydantic.Field(
            default="",
            description="HOST:PORT of a running Ray cluster, or auto for the one that this machine is part of; "
            "empty starts one on this machine, for this run alone",
        )
        cpus_per_worker: float = pydantic.Field(
            default=1.0, ge=0, description="cores that Ray sets aside for a worker; sandboxes are not counted"
        )
        max_restarts: int = pydantic.Field(
            default=10, ge=0, description="number of times that a dead worker is started anew"
        )
        start_seconds: float = pydantic.Field(
            default=120.0, gt=0, description="time for a worker to start, at first and anew"
        )

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._session = RaySession()
        self.workers: list[RayWorker] = []
        self.servers: list[RayServer] = []
        self._changed = asyncio.Event()

    async def open(self, services: Services) -> None:
        """Start Ray or connect to it, and start the workers; see ``Cluster.open``."""
        config = self.config
        await self._session.open(config.address, cores=config.workers * config.cpus_per_worker)
        from envgym_clusters.ray.worker import RayWorker  # imports ray, whose settings have to stand by then

        self.workers = [
            RayWorker(
                services,
                cpus=config.cpus_per_worker,
                max_restarts=config.max_restarts,
                start_seconds=config.start_seconds,
                paths=self._session.paths,
                on_change=self._changed.set,
            )
            for _ in range(config.workers)
        ]
        try:
            async with asyncio.timeout(config.start_seconds), asyncio.TaskGroup() as tasks:
                for worker in self.workers:
                    tasks.create_task(worker.start())
        except TimeoutError:
            ready = sum(worker.ready for worker in self.workers)
            raise UserError(
                f"cluster: {ready} of {config.workers} workers started within {config.start_seconds:g} s; "
                f"Ray has {self._session.have('CPU'):g} cores: ask for fewer (cluster.workers, "
                "cluster.cpus_per_worker), allow more time (cluster.start_seconds), or add machines"
            ) from None

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[RayWorker]:
        """Hand out the least busy worker; see ``Cluster.worker``.

        Workers of one machine die together. Once one is lost, each is asked whether it lives before it gets
        another episode: the second attempt of a lost one must not end on a worker that had died with the first.
        """
        lent = False
        while not lent:
            chosen = await self._least_busy()
            chosen.busy += 1
            try:
                if await chosen.lives(since=max(worker.lost_at for worker in self.workers)):
                    lent = True
                    yield chosen
            finally:
                chosen.busy -= 1

    async def _least_busy(self) -> RayWorker:
        while not (ready := [worker for worker in self.workers if worker.ready]):
            if all(worker.dead for worker in self.workers):
                times = self.config.max_restarts + 1
                raise WorkerLost(
                    f"no worker is left: each died {times} times (cluster.max_restarts); the last: "
                    f"{self.workers[-1].cause}"
                )
            self._changed.clear()
            await self._changed.wait()
        return min(ready, key=lambda worker: worker.busy)

    async def serve(self, program: ServerProgram) -> list[str]:
        """Start servers, each where Ray has the GPUs for it; see ``Cluster.serve``."""
        from envgym_clusters.ray.server import RayServer

        config = self.config
        started = [
            RayServer(
                program, local=not config.address, max_restarts=config.max_restarts, paths=self._session.paths
            )
            for _ in range(program.count)
        ]
        self.servers += started
        try:
            async with asyncio.timeout(program.start_seconds + _PLACING_SECONDS):
                await asyncio.gather(*(server.start() for server in started))
        except TimeoutError:
            up = sum(bool(server.address) for server in started)
            raise UserError(
                f"cluster: {up} of {program.count} servers started within {program.start_seconds:g} s; Ray has "
                f"{self._session.have('GPU'):g} GPUs, and each wants {program.gpus:g}: lower the servers' count "
                "or gpus, or add machines; a Ray that a run starts for itself (cluster.address left out) has none"
            ) from None
        return [server.address for server in started]

    async def close(self) -> None:
        """End workers and servers, and the Ray that was started for them; see ``Cluster.close``."""
        workers, servers, self.workers, self.servers = self.workers, self.servers, [], []
        await asyncio.gather(*(worker.close() for worker in workers), *(server.close() for server in servers))
        await self._session.close()
