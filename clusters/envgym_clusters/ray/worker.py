"""A worker as the run sees it: a Ray actor, which Ray starts anew when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from envgym.env.services import Services
from envgym.errors import EnvironmentFailure, UserError, WorkerLost
from envgym_clusters.ray.actor import EpisodeActor, clean_sandboxes

__all__ = ["RayWorker"]

_CLOSE_SECONDS = 30.0
_LOOK_SECONDS = 0.25
_HELLO_SECONDS = 10.0
_EPISODES = 100_000
"""Calls at once, of which each episode has one: the run bounds its episodes, and the actor must not."""


class RayWorker:
    """One actor, and how busy it is.

    Args:
        services: the worker opens its own like these.
        cpus: cores that Ray sets aside for it.
        max_restarts: number of times that Ray starts it anew.
        start_seconds: time for a new start, after which it counts as dead.
        paths: folders to look for modules in, besides its own.
        on_change: called when it becomes ready, or is dead for good.
    """

    def __init__(
        self,
        services: Services,
        *,
        cpus: float,
        max_restarts: int,
        start_seconds: float,
        paths: Sequence[str],
        on_change: Callable[[], None],
    ) -> None:
        self.busy = 0
        """Episodes that it plays."""
        self.ready = False
        self.dead = False
        """It died, and is not started anew."""
        self.cause = ""
        """What is known about its last death."""
        self.pid = 0
        """Its process, on its machine."""
        self.lost_at = -math.inf
        """When its last death was noticed, on the monotonic clock."""
        self._heard_at = -math.inf
        self._on_change = on_change
        self._start_seconds = start_seconds
        self._sandbox = services.sandbox_name
        self._node = ""
        self._reviving: asyncio.Task[None] | None = None
        kind = ray.remote(EpisodeActor)
        options = {"num_cpus": cpus, "max_restarts": max_restarts, "max_concurrency": _EPISODES}
        self._actor: Any = kind.options(**options).remote(services.to_json(), list(paths))

    async def start(self) -> None:
        """Wait until the actor runs.

        Raises:
            UserError: it cannot start, or runs another version of envgym.
        """
        try:
            version, self._node, self.pid = await self._actor.hello.remote()
        except RayTaskError as error:
            raise UserError(f"cluster: a worker cannot start: {error.cause}") from error
        except RayActorError as error:
            raise UserError(f"cluster: a worker died when it started: {error}") from error
        own = metadata.version("envgym")
        if version != own:
            raise UserError(f"cluster: a worker has envgym {version}, and this process {own}: install the same")
        self.ready = True
        self._on_change()

    async def call(self, method: str, episode: str, payload: str, *, seconds: float) -> str:
        """Call the worker; see ``envgym.rollout.cluster.ClusterWorker``."""
        sent = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                answer: str = await self._actor.call.remote(method, episode, payload)
        except RayTaskError as error:
            raise EnvironmentFailure(f"worker {self.pid} failed: {error.cause!r:.500}") from error
        except RayActorError as error:
            raise self._died(error) from error
        except TimeoutError:
            ray.kill(self._actor, no_restart=False)
            raise self._lost(f"worker {self.pid} did not answer within {seconds:.0f} s, and was ended") from None
        self._heard_at = max(self._heard_at, sent)
        return answer

    async def lives(self, since: float) -> bool:
        """Return false if it was dead at a time, which nobody may have noticed: Ray tells it to those who call.

        Args:
            since: on the monotonic clock.
        """
        if self._heard_at >= since:
            return True
        sent = time.monotonic()
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                await self._actor.hello.remote()
        except TimeoutError:
            return True  # as far as is known: a call has a limit of its own
        except RayActorError as error:
            self._died(error)
            return False
        self._heard_at = max(self._heard_at, sent)
        return True

    def _died(self, error: RayActorError) -> WorkerLost:
        return self._lost(f"worker {self.pid} died: {str(error).splitlines()[0]:.300}")

    def _lost(self, cause: str) -> WorkerLost:
        if self.ready:
            self.ready, self.cause, self.lost_at = False, cause, time.monotonic()
            self._reviving = asyncio.create_task(self._revive(self._node))
        return WorkerLost(cause)

    async def _revive(self, node: str) -> None:
        """Remove what the dead actor left on its machine, and wait until Ray has started it anew."""
        await self._sweep(node)
        try:
            async with asyncio.timeout(self._start_seconds):
                while not self.ready:
                    try:
                        await self.start()
                    except UserError as error:
                        if isinstance(error.__cause__, ActorDiedError):
                            break
                        await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            self.cause += f"; it did not start anew within {self._start_seconds:g} s"
        self.dead = not self.ready
        self._on_change()

    async def _sweep(self, node: str) -> None:
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(clean_sandboxes).options(num_cpus=0, scheduling_strategy=place)
        with contextlib.suppress(RayError):  # its machine is gone, and everything on it
            await task.remote(self._sandbox)

    async def close(self) -> None:
        """End the actor, after it freed what it holds."""
        if self._reviving is not None:
            self._reviving.cancel()
        if self.ready:  # one that never started would not answer
            with contextlib.suppress(RayError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._actor.close.remote()
        ray.kill(self._actor)
