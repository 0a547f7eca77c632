"""Play one episode from synchronous code."""

from __future__ import annotations

from envgym.env.chat_env import ChatEnv
from envgym.env.run_sync import run_sync
from envgym.policies.scripted import Player
from envgym.records import Task, Trajectory
from envgym.rollout.episode import rollout

__all__ = ["play"]


def play(env: ChatEnv, policy: Player, task: Task | None = None, *, seed: int = 0) -> Trajectory:
    """Play one episode and return its trajectory, scored.

    Args:
        env: plays the episode; the caller closes it.
        policy: acts; ``Expert()`` is the environment's own.
        task: the task to play; the first one of the environment's split by default.
        seed: seeds the environment and the policy's draws.

    Raises:
        AssertionError: the episode failed, so it has no reward; the message gives the error.
        UserError: the environment's data or settings are unusable.
    """
    chosen = env.task_list(env.split)[0] if task is None else task
    trajectory = run_sync(rollout(env, policy, chosen, name=type(env).__name__, seed=seed))
    if trajectory.failed:
        raise AssertionError(f"the episode of task {chosen.id} failed: {trajectory.outcome.reason}")
    return trajectory
