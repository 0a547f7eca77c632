"""What environments need from outside. Nothing is global: an environment asks the services it was handed.

``Services`` belong to a run. An environment sees them through its ``EpisodeServices``, which add what is the
episode's own: a seeded generator, the time left, and episodes that other roles play.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from envgym.errors import NestedEpisodeError, SandboxError, UnknownNameError, UserError
from envgym.records import Task, Trajectory
from envgym.sandbox.interface import Backend, Limits, Sandbox
from envgym.sandbox.selection import AUTO, sandboxes, select_backend
from envgym.verifiers.judge import Judge

if TYPE_CHECKING:
    from envgym.env.chat_env import ChatEnv

__all__ = ["EpisodeHost", "EpisodeServices", "Services"]


class Services:
    """Shared by the environments of one run, and closed at its end.

    Args:
        sandbox: a backend's name, or ``"auto"`` for the best isolated one this machine has.
        sandbox_settings: of that backend; see ``select_backend``.
        judge: a language model that grades, as ``URL#MODEL``; ``""`` for none.

    Raises:
        UnknownNameError: no such backend.
        UserError: the judge's address is not one of a server.
    """

    def __init__(
        self, sandbox: str = AUTO, sandbox_settings: Mapping[str, Any] | None = None, judge: str = ""
    ) -> None:
        known = (AUTO, *sandboxes.plugins())
        if sandbox not in known and ":" not in sandbox:
            raise UnknownNameError("sandbox", sandbox, known)
        self.sandbox_name = sandbox
        self._settings = dict(sandbox_settings or {})
        self._backend: Backend | None = None
        url, _, model = judge.partition("#")
        self._judge = Judge(url, model=model) if judge else None

    def backend(self) -> Backend:
        """The sandbox backend, made on first use.

        Raises:
            UserError: no such backend, or none that this machine can run.
        """
        if self._backend is None:
            self._backend = select_backend(self.sandbox_name, self._settings)
        return self._backend

    async def open_sandbox(self, limits: Limits) -> Sandbox:
        """Open a sandbox; the caller closes it.

        Raises:
            SandboxError: none could be started.
        """
        try:
            return await self.backend().open(limits)
        except OSError as error:
            raise SandboxError(f"the sandbox backend failed: {error}") from error

    def judge(self) -> Judge:
        """The judge.

        Raises:
            UserError: none was named.
        """
        if self._judge is None:
            raise UserError(
                "this needs a judge, and none is named: give --judge URL#MODEL, or judge = 'URL#MODEL' in the "
                "recipe; URL is that of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1"
            )
        return self._judge

    async def close(self) -> None:
        """Free the backend and the judge's connections. Safe to call twice."""
        if self._judge is not None:
            await self._judge.close()
        if self._backend is not None:
            backend, self._backend = self._backend, None
            await backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class EpisodeHost(Protocol):
    """Whoever plays an episode: its record, its deadline, and those who act for other roles."""

    @property
    def record(self) -> Trajectory:
        """The record that the environment fills."""

    @property
    def deadline(self) -> float:
        """When the episode must be over, on the clock of ``time.monotonic``, in seconds."""

    @property
    def depth(self) -> int:
        """Episodes around this one."""

    async def play(self, env: ChatEnv | str, task: Task, *, role: str, seed: int | None) -> Trajectory:
        """Play a nested episode with whoever acts for ``role``; see ``EpisodeServices.play``."""


class EpisodeServices:
    """The services of one environment in one episode; every episode gets new ones.

    Args:
        shared: those of the run.
        rng: seeded by the episode's seed: equal seeds, equal draws.
        host: plays the episode; ``None`` outside a rollout, as in a bare ``gymnasium.make(...).reset()``.
        roles: that the environment declares.
    """

    def __init__(
        self,
        shared: Services,
        rng: random.Random,
        host: EpisodeHost | None = None,
        roles: Collection[str] = (),
    ) -> None:
        self.shared = shared
        self.rng = rng
        self._host = host
        self._roles = roles

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

    @property
    def depth(self) -> int:
        """Episodes around this one: 0 unless it is nested."""
        return self._host.depth if self._host else 0

    def seconds_left(self) -> float:
        """Seconds until the episode's deadline, at least 0; infinite outside a rollout."""
        return max(0.0, self._host.deadline - time.monotonic()) if self._host else math.inf

    async def play(
        self, env: ChatEnv | str, task: Task, *, role: str, seed: int | None = None, failed_ok: bool = False
    ) -> Trajectory:
        """Play a nested episode with the policy of ``role``, and keep its record in this episode's ``nested``.

        The policy being run plays every role, unless the recipe's ``[roles.NAME]`` names another. The nested
        episode shares this one's deadline, and is cancelled and cleaned up with it.

        Args:
            env: an instance, one episode at a time; or an environment's id, which makes an instance for this
                episode alone, with default settings and the services of this run.
            task: what is played; often made from what happened so far.
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
                f"no policy plays the role {role!r}: this episode was begun by reset() alone. Play it with "
                "envgym.rollout.episode.rollout(env, policy, task, ..., roles={...}), envgym rollout or a recipe"
            )
        nested = await self._host.play(env, task, role=role, seed=seed)
        if nested.failed and not failed_ok:
            raise NestedEpisodeError(f"role {role!r}: {nested.outcome.reason}")
        return nested
