"""The services of a run as one environment sees them in one episode.

They add a seeded generator, the time left, and nested episodes for other roles, all bound to this episode.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Collection, Hashable
from typing import Any, Protocol, TypeAlias, TypeVar

import gymnasium

from envgym.env.services import Closeable, Services
from envgym.errors import NestedEpisodeError, UserError
from envgym.records import Task, Trajectory
from envgym.sandbox.interface import Limits, Sandbox
from envgym.verifiers.judge import Judge

__all__ = ["AnyEnv", "EpisodeHost", "EpisodeServices"]

C = TypeVar("C", bound=Closeable)
AnyEnv: TypeAlias = gymnasium.Env[Any, Any] | str
"""A ``ChatEnv``, which is made of this module and so cannot be named in it, or an environment's id."""


class EpisodeHost(Protocol):
    """The player of an episode: keeps its record and time, and plays nested episodes."""

    @property
    def record(self) -> Trajectory:
        """The record that the environment fills."""

    def seconds_left(self) -> float:
        """Return the seconds until the episode's deadline; negative past it."""

    @property
    def depth(self) -> int:
        """Number of episodes around this one."""

    async def play(self, env: AnyEnv, task: Task, *, role: str, seed: int | None) -> Trajectory:
        """Play a nested episode with whoever acts for ``role``; see ``EpisodeServices.play``."""


class EpisodeServices:
    """The services of one environment in one episode; every episode gets new ones.

    Args:
        shared: the services of the run.
        seed: of ``rng``, so that equal seeds give equal draws.
        host: plays the episode; ``None`` outside a rollout, as in a bare ``gymnasium.make(...).reset()``.
        roles: names that the environment declares.
    """

    def __init__(
        self,
        shared: Services,
        seed: int = 0,
        host: EpisodeHost | None = None,
        roles: Collection[str] = (),
    ) -> None:
        self.shared = shared
        self._seed = seed
        self._host = host
        self._roles = roles

    def __reduce__(self) -> tuple[Any, ...]:
        if self._host is not None:
            raise TypeError("the services of an episode that a rollout plays cannot be copied or pickled")
        return _with_draws, (self.shared, self._seed, self._roles, vars(self).get("rng"))

    @functools.cached_property
    def rng(self) -> random.Random:
        """The episode's generator, seeded when it is asked for."""
        return random.Random(self._seed)

    async def open_sandbox(self, limits: Limits) -> Sandbox:
        """Open a sandbox; the caller closes it.

        Raises:
            SandboxError: none could be started.
        """
        return await self.shared.open_sandbox(limits)

    def judge(self) -> Judge:
        """Return the judge.

        Raises:
            UserError: none was named.
        """
        return self.shared.judge()

    def keep(self, key: Hashable, make: Callable[[], C]) -> C:
        """Return what ``make`` made for ``key``, shared by every episode of the run; see ``Services.keep``."""
        return self.shared.keep(key, make)

    @property
    def depth(self) -> int:
        """Number of episodes around this one: 0 unless it is nested."""
        return self._host.depth if self._host else 0

    def seconds_left(self) -> float:
        """Return the seconds until the episode's deadline, at least 0; infinite outside a rollout."""
        return max(0.0, self._host.seconds_left()) if self._host else math.inf

    async def play(
        self,
        env: AnyEnv,
        task: Task,
        *,
        role: str,
        seed: int | None = None,
        failed_ok: bool = False,
    ) -> Trajectory:
        """Play a nested episode with the policy of ``role``, and keep its record in this episode's ``nested``.

        The policy being run plays every role, unless the recipe's ``[roles.NAME]`` names another. The nested
        episode shares this one's deadline, and is cancelled and cleaned up with it.

        Args:
            env: an instance, one episode at a time; or an environment's id, which makes an instance for this
                episode alone, with default settings and the services of this run.
            task: the task to play; often built from the episode so far.
            role: one of the ``roles`` that the environment's class declares.
            seed: of the nested episode; derived from this episode's seed by default.
            failed_ok: return a nested episode that failed instead of raising.

        Returns:
            the finished trajectory.

        Raises:
            NestedEpisodeError: the nested episode failed, which makes this one missing data, too.
            EnvironmentFailure: episodes are nested too deep; see ``depth``.
            UserError: the role is not declared, no rollout plays this episode, or the instance is in use.
        """
        if role not in self._roles:
            declared = ", ".join(self._roles) or "none"
            raise UserError(f"no role {role!r} is declared: name it in the class, roles = (...); now: {declared}")
        if self._host is None:
            raise UserError(
                f"no policy plays the role {role!r}: no rollout is under way, as after a bare reset(). Play the "
                "episode with envgym.rollout.episode.rollout(env, policy, ...), envgym rollout or a recipe"
            )
        nested = await self._host.play(env, task, role=role, seed=seed)
        if nested.failed and not failed_ok:
            raise NestedEpisodeError(f"role {role!r}: {nested.outcome.reason}")
        return nested


def _with_draws(shared: Services, seed: int, roles: Collection[str], rng: random.Random | None) -> EpisodeServices:
    made = EpisodeServices(shared, seed, None, roles)
    if rng is not None:
        made.rng = rng
    return made
