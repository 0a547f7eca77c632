"""What runs in a worker's process. Ray pickles arguments and results, which are text and numbers."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import metadata

import ray

from envgym.env.services import Services
from envgym.errors import EnvgymError
from envgym.rollout.worker import EpisodeWorker
from envgym.sandbox.selection import AUTO, sandboxes

__all__ = ["EpisodeActor", "clean_sandboxes"]


class EpisodeActor:
    """An ``EpisodeWorker`` as an asynchronous Ray actor: all its episodes share one event loop.

    Args:
        services: ``Services.to_json()`` of the run.
        paths: folders to look for modules in, besides its own.
    """

    def __init__(self, services: str, paths: list[str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        made = Services.from_json(services)
        if ray.get_runtime_context().was_current_actor_reconstructed:
            # The run may not have noticed the death: it came between two calls.
            clean_sandboxes(made.sandbox_name)
        self._worker = EpisodeWorker(made)

    async def hello(self) -> tuple[str, str, int]:
        """Return the version of envgym, the id of the node, and that of the process."""
        return metadata.version("envgym"), ray.get_runtime_context().get_node_id(), os.getpid()

    async def call(self, method: str, episode: str, payload: str) -> str:
        """Serve one call; see ``EpisodeWorker.call``."""
        return await self._worker.call(method, episode, payload)

    async def close(self) -> None:
        """Free everything."""
        await self._worker.close()


def clean_sandboxes(chosen: str) -> int:
    """Remove the sandboxes that dead processes left on this machine, and return their number.

    Args:
        chosen: the backend, or ``auto`` for every one that works here.
    """
    removed = 0
    for name in sandboxes.plugins() if chosen == AUTO else [chosen]:
        with contextlib.suppress(EnvgymError):  # not installed here, or no daemon answers
            removed += sandboxes.load(name).clean()
    return removed
