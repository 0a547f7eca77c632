"""Play one episode and those nested in it. The only place where an episode's errors are caught and become data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from envgym.env.bounded import Late, bounded
from envgym.env.chat_env import ChatEnv
from envgym.env.clock import loop_clock
from envgym.env.culprit import is_authors
from envgym.env.episode_services import AnyEnv
from envgym.env.leftovers import keep_leftovers
from envgym.env.registration import environments
from envgym.env.works import outside
from envgym.errors import EnvironmentFailure, EpisodeError, EpisodeTimeout, PolicyError, UserError
from envgym.plugins.registry import short_name
from envgym.policies.interface import Completion, ContextFull, PolicySession
from envgym.policies.scripted import Expert, Player
from envgym.records import Observation, Outcome, OutcomeKind, Task, Trajectory
from envgym.rollout.turnstile import Turnstile
from envgym.seeding import derive_seed
from envgym.web.deadline import bounded_by

__all__ = ["act", "cleaned", "discard", "rollout", "typed_errors"]

_Cleaning: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
_CLEANUP_SECONDS = 30.0
_MAX_DEPTH = 4
"""Maximum depth of nesting, so that an environment that plays itself comes to an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cast:
    """The players of an episode and of those nested in it."""

    policy: Player
    """Acts in the outermost episode and for every role without a player of its own. Only its tokens are kept."""
    roles: Mapping[str, Player]
    """Players of roles that the policy does not play."""
    turnstile: Turnstile


async def rollout(
    env: ChatEnv,
    policy: Player,
    task: Task,
    *,
    name: str,
    seed: int,
    deadline: float = 600.0,
    roles: Mapping[str, Player] | None = None,
    turnstile: Turnstile | None = None,
) -> Trajectory:
    """Play ``task`` from reset to the end.

    Args:
        env: plays one episode at a time; the caller must not share it until the rollout ends.
        policy: acts, also for every role of nested episodes that ``roles`` leaves out.
        task: the task to play.
        name: the environment's name in the record.
        seed: seeds the environment and, through a hash that hides it, the policy's draws.
        deadline: seconds for boot, turns and scoring together; an episode that runs past it is missing data,
            for the policy does not choose how fast the machine is. Seconds for which somebody blocks the event
            loop do not count.
        roles: players of roles in nested episodes.
        turnstile: learns when the episode waits for a player, if it has let this episode in.

    Returns:
        the trajectory; ``failed`` if infrastructure failed, whatever the cause. The episode and those nested in
        it are over and cleaned up, even on cancellation; only the environment is left to close.

    Raises:
        UserError: the request cannot be carried out as written; no retry would help.
    """
    record = Trajectory(env=name, task=task, seed=seed)
    cast = _Cast(policy=policy, roles=roles or {}, turnstile=turnstile or Turnstile(1))
    await _Episode(env, policy, record, cast, end=loop_clock().now() + deadline).run()
    return record


async def discard(env: ChatEnv) -> None:
    """Close an environment, in bounded time.

    Raises:
        EpisodeError: it could not be closed.
        UserError: see ``rollout``.
    """
    try:
        await cleaned(env.aclose, EnvironmentFailure)
    finally:
        keep_leftovers()


class typed_errors:  # noqa: N801 - a context manager
    """Let typed errors and user mistakes through; turn anything else of an author's code into ``kind``."""

    __slots__ = ("_kind",)

    def __init__(self, kind: type[EpisodeError]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, EpisodeError | UserError) and is_authors(error):
            raise self._kind(f"{type(error).__name__}: {error}".removesuffix(": ")) from error


async def cleaned(code: _Cleaning, kind: type[EpisodeError]) -> None:
    """Await an author's cleaning up, in bounded time.

    Raises:
        EpisodeError: of ``kind``: it raised, or was late.
        UserError: see ``rollout``.
    """
    with typed_errors(kind):
        name = getattr(code, "__qualname__", "cleaning up")
        try:
            await bounded(code(), _CLEANUP_SECONDS, name)
        except Late as late:
            raise kind(f"{name}() took longer than {_CLEANUP_SECONDS:g} s, {late}") from None


class _Episode:
    """One episode under way: the ``EpisodeHost`` of its environment."""

    def __init__(
        self, env: ChatEnv, player: Player, record: Trajectory, cast: _Cast, *, end: float, depth: int = 0
    ) -> None:
        self.record = record
        self.depth = depth
        self._env = env
        self._player = player
        self._cast = cast
        self._clock = loop_clock()
        self._end = end
        self._seconds = self.seconds_left()
        self._over = False
        self._session: PolicySession | None = None
        self._nested: set[asyncio.Task[None]] = set()
        self._awaited = 0

    async def run(self) -> None:
        started = time.monotonic()
        failure: EpisodeError | None = None
        try:
            # Watched as a whole: to begin anew for each limit would take a thread each time.
            with self._env.reserved(), self._clock.watching():
                try:
                    await self._within_the_deadline()
                except EpisodeError as error:
                    failure = error
                finally:
                    leak = await self._clean_up()
            failure = failure or leak
        finally:
            keep_leftovers()
            self.record.seconds = time.monotonic() - started
        if failure is not None:
            self.record.outcome = Outcome.failed(failure)

    async def play(self, env: AnyEnv, task: Task, *, role: str, seed: int | None) -> Trajectory:
        if self._over:
            raise EnvironmentFailure(f"role {role!r} was to play after the episode that asked for it was over")
        if self.depth >= _MAX_DEPTH:
            raise EnvironmentFailure(f"role {role!r}: episodes are nested more than {_MAX_DEPTH} deep")
        if seed is None:
            seed = derive_seed("nested", self.record.seed, role, len(self.record.nested)) % 2**32
        name = short_name(env) if isinstance(env, str) else type(env).__name__
        record = Trajectory(env=name, task=task, seed=seed, role=role)
        self.record.nested.append(record)
        # Runs as a task that this episode owns, so that it ends here even if the author's code does not await it.
        with outside():
            playing = asyncio.create_task(self._play_nested(env, record))
        self._nested.add(playing)
        playing.add_done_callback(self._nested.discard)
        try:
            with self._awaiting():
                await playing
        except BaseException as error:
            record.outcome = Outcome.failed(error)
            raise
        return record

    @contextlib.contextmanager
    def _awaiting(self) -> Iterator[None]:
        """Mark this episode as waiting while it plays others, until the last of them is over."""
        self._awaited += 1
        if self._awaited == 1:
            self._cast.turnstile.pause()
        try:
            yield
        finally:
            self._awaited -= 1
            if not self._awaited:
                self._cast.turnstile.resume()

    async def _play_nested(self, env: AnyEnv, record: Trajectory) -> None:
        player = self._cast.roles.get(record.role, self._cast.policy)
        made = environments.make(env, services=self._env.services) if isinstance(env, str) else env
        if not isinstance(made, ChatEnv):
            raise UserError(f"role {record.role!r}: a nested episode needs a ChatEnv or its id, got {made!r:.80}")
        inner = _Episode(made, player, record, self._cast, end=self._end, depth=self.depth + 1)
        with self._cast.turnstile.working():
            try:
                await inner.run()
            finally:
                if made is not env:
                    await discard(made)

    def seconds_left(self) -> float:
        return self._end - self._clock.now()

    async def _within_the_deadline(self) -> None:
        try:
            with bounded_by(self.seconds_left):
                name = f"the code of {type(self._env).__name__}"
                await bounded(self._play(), max(0.0, self.seconds_left()), name)
        except Late as late:
            raise EpisodeTimeout(
                f"{self._progress()} after {round(self._seconds, 2):g} s; raise the deadline "
                f"(sampling.deadline in a recipe), or let episodes be shorter; it was {late}"
            ) from None

    def _progress(self) -> str:
        if self.record.outcome.kind is not OutcomeKind.RUNNING:
            return "over, but not scored and cleaned up"
        return f"in turn {len(self.record.turns) + 1}" if self._env.running else "not begun"

    async def _clean_up(self) -> EpisodeError | None:
        """End the episode. Return errors instead of raising, so that they never mask the original one."""
        self._over = True
        for playing in self._nested:
            playing.cancel()
        if self._nested:
            await asyncio.wait(self._nested, timeout=_CLEANUP_SECONDS)
        closing: list[tuple[_Cleaning, type[EpisodeError]]] = [(self._env.end_episode, EnvironmentFailure)]
        if self._session is not None:
            closing.insert(0, (self._session.close, PolicyError))
        failure: EpisodeError | None = None
        for code, kind in closing:
            try:
                await cleaned(code, kind)
            except EpisodeError as error:
                failure = failure or error
        return failure

    async def _play(self) -> None:
        with typed_errors(EnvironmentFailure):
            observation, _ = await self._env.areset(seed=self.record.seed, options={"host": self})
        with typed_errors(PolicyError):
            session = self._session = self._open()
        ended = False
        while not ended:
            await self._cast.turnstile.turn()
            with self._cast.turnstile.waiting():
                completion = await act(session, observation)
            with typed_errors(EnvironmentFailure):
                if completion is None:
                    await self._env.truncate("context")
                    return
                # Another player's tokens would be trained on as if the policy had sampled them.
                tokens = completion.tokens if self._player is self._cast.policy else None
                observation, _, terminated, truncated, _ = await self._env.astep(completion.message, tokens)
            ended = terminated or truncated

    def _open(self) -> PolicySession:
        """Open the player's session. Only the expert sees the task; a policy cannot derive the episode's seed."""
        if isinstance(self._player, Expert):
            return self._player.open(self._env, self.record.task)
        return self._player.open(self.record.tools, derive_seed("policy", self.record.seed) % 2**32)


async def act(session: PolicySession, observation: Observation) -> Completion | None:
    """Return a player's next completion, or ``None`` when the context has no room for one.

    Raises:
        PolicyError: the player failed.
        UserError: see ``rollout``.
    """
    with typed_errors(PolicyError):
        try:
            return await session.act(observation)
        except ContextFull:
            return None
