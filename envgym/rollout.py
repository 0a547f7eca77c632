"""Play one episode. The one place where the errors of an episode are caught and become data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from envgym.core import ChatEnv
from envgym.data import Observation, Outcome, Task, Trajectory
from envgym.errors import EnvironmentFailure, EpisodeError, PolicyError, UserError
from envgym.policy import Completion, ContextFull, Policy, PolicySession

__all__ = ["rollout"]

_SCORING_SECONDS = 60.0


async def rollout(
    env: ChatEnv, policy: Policy, task: Task, *, name: str, seed: int, deadline: float = 600.0
) -> Trajectory:
    """Play ``task`` from reset to the end.

    Args:
        env: plays one episode at a time; the caller does not share it meanwhile.
        policy: acts.
        task: what to play.
        name: the environment's name in the record.
        seed: seeds the environment and the policy's draws.
        deadline: seconds for boot, turns and scoring together; an episode that runs past it while it is being
            played is truncated, reason ``time``, and scored; one that never began is failed.

    Returns:
        the trajectory; ``failed`` when infrastructure failed, whatever the cause.

    Raises:
        UserError: the request cannot be carried out as written; no retry would help.
    """
    started = time.monotonic()
    trajectory = Trajectory(env=name, task=task, seed=seed)
    try:
        try:
            async with asyncio.timeout(deadline):
                await _play(env, policy, task, seed)
        except TimeoutError:
            await _stop_the_clock(env, deadline)
    except EpisodeError as error:
        trajectory.outcome = Outcome.failed(error)
    finally:
        with _typed(EnvironmentFailure):
            await env.end_episode()
    if env.trajectory is not None and env.trajectory.task is task:
        failure = trajectory.outcome if trajectory.failed else env.trajectory.outcome
        trajectory = env.trajectory
        trajectory.env, trajectory.seed, trajectory.outcome = name, seed, failure
    trajectory.seconds = time.monotonic() - started
    return trajectory


async def _play(env: ChatEnv, policy: Policy, task: Task, seed: int) -> None:
    with _typed(EnvironmentFailure):
        observation, _ = await env.areset(seed=seed, options={"task": task})
    with _typed(PolicyError):
        session = policy.open(env, task, seed)
    try:
        ended = False
        while not ended:
            completion = await _act(session, observation)
            with _typed(EnvironmentFailure):
                if completion is None:
                    await env.truncate("context")
                    return
                observation, _, terminated, truncated, _ = await env.astep(completion.message, completion.tokens)
            ended = terminated or truncated
    finally:
        await session.close()


async def _act(session: PolicySession, observation: Observation) -> Completion | None:
    """The next completion, or ``None`` when the context has no room for one."""
    with _typed(PolicyError):
        try:
            return await session.act(observation)
        except ContextFull:
            return None


async def _stop_the_clock(env: ChatEnv, deadline: float) -> None:
    if not env.running:
        raise EnvironmentFailure(f"the episode neither began nor was scored within {deadline:g} s")
    try:
        async with asyncio.timeout(_SCORING_SECONDS):
            with _typed(EnvironmentFailure):
                await env.truncate("time")
    except TimeoutError:
        raise EnvironmentFailure(f"scoring took longer than {_SCORING_SECONDS:g} s") from None


@contextlib.contextmanager
def _typed(kind: type[EpisodeError]) -> Iterator[None]:
    """Let typed errors and user mistakes through; anything else an author's code raises becomes ``kind``."""
    try:
        yield
    except (EpisodeError, UserError):
        raise
    except Exception as error:
        raise kind(f"{type(error).__name__}: {error}") from error
