"""Control rewards: what training does when the reward says nothing about the task (arXiv 2506.10947).

Evaluation never sees a control; it replaces the reward of training alone, the unshaped success that dynamic
sampling looks at included.
"""

from __future__ import annotations

from typing import Literal

from envgym.data import Trajectory
from envgym.seeding import derive_rng

__all__ = ["Control", "controlled"]

Control = Literal["none", "random"]


def controlled(control: Control, trajectory: Trajectory) -> tuple[float, float]:
    """Reward and unshaped success of a trajectory under a control; NaN both where it is missing data.

    ``random`` is a fair coin, seeded by the trajectory: 0 or 1, whatever was done.
    """
    if trajectory.failed or trajectory.score is None:
        return float("nan"), float("nan")
    if control == "random":
        coin = float(derive_rng("control", trajectory.env, trajectory.task.id, trajectory.seed).random() < 0.5)
        return coin, coin
    return trajectory.reward, trajectory.score.accuracy
