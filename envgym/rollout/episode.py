"""Play one episode. The one place where the errors of an episode are caught and become data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from envgym.env.chat_env import ChatEnv
from envgym.errors import EnvironmentFailure, EpisodeError, PolicyError, UserError
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.records import Observation, Outcome, Task, Trajectory

__all__ = ["rollout", "typed_errors"]

_SCORING_SECONDS = 60.0
_CLEANUP_SECONDS = 30.0


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
        the trajectory; ``failed`` when infrastructure failed, whatever the cause. The episode is over and
        cleaned up, also when this is cancelled; only the environment itself is left to close.

    Raises:
        UserError: the request cannot be carried out as written; no retry would help.
    """
    started = time.monotonic()
    earlier = env.trajectory
    failure: EpisodeError | None = None
    try:
        await _within(deadline, env, policy, task, seed)
    except EpisodeError as error:
        failure = error
    finally:
        leak = await _clean_up(env)
    failure = failure or leak
    trajectory = env.trajectory
    if trajectory is None or trajectory is earlier:
        trajectory = Trajectory(env=name, task=task)
    if failure is not None:
        trajectory.outcome = Outcome.failed(failure)
    trajectory.env, trajectory.seed, trajectory.seconds = name, seed, time.monotonic() - started
    return trajectory


async def _within(deadline: float, env: ChatEnv, policy: Policy, task: Task, seed: int) -> None:
    try:
        async with asyncio.timeout(deadline):
            await _play(env, policy, task, seed)
    except TimeoutError:
        await _stop_the_clock(env, deadline)


async def _clean_up(env: ChatEnv) -> EpisodeError | None:
    """End the episode. What goes wrong is returned, so that it takes the place of no error under way."""
    try:
        async with asyncio.timeout(_CLEANUP_SECONDS):
            with typed_errors(EnvironmentFailure):
                await env.end_episode()
    except TimeoutError:
        return EnvironmentFailure(f"finish() took longer than {_CLEANUP_SECONDS:g} s")
    except EpisodeError as error:
        return error
    return None


async def _play(env: ChatEnv, policy: Policy, task: Task, seed: int) -> None:
    with typed_errors(EnvironmentFailure):
        observation, _ = await env.areset(seed=seed, options={"task": task})
    with typed_errors(PolicyError):
        session = policy.open(env, task, seed)
    try:
        ended = False
        while not ended:
            completion = await _act(session, observation)
            with typed_errors(EnvironmentFailure):
                if completion is None:
                    await env.truncate("context")
                    return
                observation, _, terminated, truncated, _ = await env.astep(completion.message, completion.tokens)
            ended = terminated or truncated
    finally:
        with typed_errors(PolicyError):
            await session.close()


async def _act(session: PolicySession, observation: Observation) -> Completion | None:
    """The next completion, or ``None`` when the context has no room for one."""
    with typed_errors(PolicyError):
        try:
            return await session.act(observation)
        except ContextFull:
            return None


async def _stop_the_clock(env: ChatEnv, deadline: float) -> None:
    if not env.running:
        raise EnvironmentFailure(f"the episode was not begun, or not scored and cleaned up, within {deadline:g} s")
    try:
        async with asyncio.timeout(_SCORING_SECONDS):
            with typed_errors(EnvironmentFailure):
                await env.truncate("time")
    except TimeoutError:
        raise EnvironmentFailure(f"scoring took longer than {_SCORING_SECONDS:g} s") from None


@contextlib.contextmanager
def typed_errors(kind: type[EpisodeError]) -> Iterator[None]:
    """Let typed errors and user mistakes through; anything else an author's code raises becomes ``kind``."""
    try:
        yield
    except (EpisodeError, UserError):
        raise
    except Exception as error:
        raise kind(f"{type(error).__name__}: {error}") from error
