"""The processes of a stage, and what becomes of the run when one of them dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import torch

from envgym_trainers.distributed.joining import join
from envgym_trainers.distributed.team import ProcessLost, Team
from envgym_trainers.learner.following import follow
from envgym_trainers.learner.updater import Loss, Updater
from envgym_trainers.models.placement import Device
from envgym_trainers.recipe import StageRecipe
from envgym_trainers.stages.setup import prepare_torch

__all__ = ["follow_leader", "teamed_up"]

_SECONDS = 5.0
"""Time in which it is found out that an error comes of another process."""


@contextlib.asynccontextmanager
async def teamed_up(device: Device) -> AsyncIterator[Team]:
    """Give the leader of the run its processes. One that dies cancels the work, which closes what it has open.

    Raises:
        UserError: the processes cannot meet.
        ProcessLost: one of them died.
    """
    team = await asyncio.to_thread(join, device)
    if team.size == 1:
        yield team
        return
    loop, task, gone = asyncio.get_running_loop(), asyncio.current_task(), 0

    def lost(rank: int) -> None:
        nonlocal gone
        gone = rank
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    team.watch(lost)
    try:
        yield team
    except (RuntimeError, asyncio.CancelledError) as error:
        # What the connections raise may come before the thread that watches them.
        if isinstance(error, RuntimeError) and not await asyncio.to_thread(team.lost.wait, _SECONDS):
            raise
        if not team.lost.is_set():
            raise
        raise ProcessLost(
            f"process {gone} of {team.size} died, and the others cannot go on without its part of the model; what "
            "was saved is intact: resume the run, with as many processes as you like"
        ) from error
    else:
        team.end()


def follow_leader(recipe: StageRecipe, begin: Callable[[dict[str, Any], Team], tuple[Updater, Loss]]) -> None:
    """Do what the other processes of a run do.

    Args:
        recipe: the run's recipe.
        begin: makes a learner of the values by which the leader began one.

    Raises:
        UserError: the processes cannot meet.
        ProcessLost: the leader died.
    """
    prepare_torch(recipe)
    team = join(recipe.model.device)
    torch.set_num_threads(team.threads(torch.get_num_threads()))
    team.watch(lambda rank: None)
    follow(team, lambda values: begin(values, team))
