"""What every process of a run but the first does: learn, as the first says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from envgym.errors import EnvgymError
from envgym_trainers.distributed.team import ProcessLost, Team
from envgym_trainers.learner.updater import Loss, Updater

__all__ = ["follow"]

_LEADER_SECONDS = 5.0
"""Time in which it is found out that an error comes of another process."""


def follow(team: Team, begin: Callable[[dict[str, Any]], tuple[Updater, Loss]]) -> None:
    """Follow the leader until it ends.

    Args:
        team: as one of its followers sees it.
        begin: makes a learner of the values by which the leader began one.

    Raises:
        ProcessLost: the leader ended while something was being learnt.
    """
    while (order := team.next_run()) is not None:
        try:
            updater, loss = begin(order.values)
            for order in team.orders():
                # The leader raises the same, and decides what comes of it.
                with contextlib.suppress(EnvgymError):
                    updater.follow(order, loss)
        except RuntimeError as error:
            # Connections break in all kinds of ways, in the middle of all kinds of calls.
            if not team.lost.wait(_LEADER_SECONDS):
                raise
            raise ProcessLost(
                "the first process of the run ended in the middle of it; see what it says"
            ) from error
