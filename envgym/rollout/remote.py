"""Play an episode on a worker of a cluster, with policies that stay in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import replace

from envgym.env.bounded import Late, bounded
from envgym.env.clock import loop_clock
from envgym.errors import EpisodeError, PolicyError, UserError, WorkerLost
from envgym.policies.interface import PolicySession
from envgym.policies.scripted import Expert, Novice, Player
from envgym.records import Outcome, Trajectory, from_json, to_json
from envgym.rollout.cluster import Cluster, ClusterWorker
from envgym.rollout.episode import act, cleaned, typed_errors
from envgym.rollout.turnstile import Turnstile
from envgym.rollout.wire import CALLER, Ask, EpisodeSpec, PlayerAnswer, PlayerAnswers, PlayerReference, Round
from envgym.web.deadline import bounded_by

__all__ = ["play_on"]

_GRACE_SECONDS = 90.0
"""Time that a worker has beyond an episode's deadline: it has limits of its own for cleaning up."""
_numbers = itertools.count()


async def play_on(
    cluster: Cluster, spec: EpisodeSpec, policy: Player, roles: Mapping[str, Player], turnstile: Turnstile
) -> Trajectory:
    """Play one episode once, as ``envgym.rollout.episode.rollout`` does in this process.

    Args:
        cluster: lends the worker.
        spec: what to play, except who acts.
        policy: acts in the episode, and for the roles that ``roles`` leaves out. Its token records are kept.
        roles: players of roles in nested episodes.
        turnstile: has let the episode in.

    Returns:
        the trajectory; ``failed`` if infrastructure failed, the loss of the worker included.

    Raises:
        UserError: the request cannot be carried out as written.
    """
    started = time.monotonic()
    named = {role: _reference(player) for role, player in roles.items()}
    spec = replace(spec, policy=_reference(policy), roles=named)
    try:
        async with cluster.worker() as worker:
            record = await _RemoteEpisode(worker, spec, {**roles, "": policy}, turnstile).run()
    except EpisodeError as error:
        record = Trajectory(env=spec.entry.label, task=spec.task, seed=spec.seed, outcome=Outcome.failed(error))
    record.seconds = time.monotonic() - started
    return record


def _reference(player: Player) -> PlayerReference:
    if isinstance(player, Expert):
        return "novice" if isinstance(player, Novice) else "gold"
    return CALLER


class _RemoteEpisode:
    """One episode on a worker, and the sessions of the players that act in it."""

    def __init__(
        self, worker: ClusterWorker, spec: EpisodeSpec, players: Mapping[str, Player], turnstile: Turnstile
    ) -> None:
        self._worker = worker
        self._spec = spec
        self._players = players
        self._turnstile = turnstile
        self._name = f"{os.getpid()}-{next(_numbers)}"
        self._sessions: dict[int, PolicySession] = {}
        self._clock = loop_clock()
        self._end = self._clock.now() + spec.deadline

    async def run(self) -> Trajectory:
        record: Trajectory | None = None
        try:
            with self._clock.watching(), bounded_by(self._seconds_left):
                record = await self._play()
        finally:
            leak = await self._close(list(self._sessions))
            if record is None:
                await self._cancel()
        if leak is not None and not record.failed:
            record.outcome = Outcome.failed(leak)
        return record

    async def _play(self) -> Trajectory:
        found = await self._call("begin", to_json(self._spec))
        while found.trajectory is None:
            if leak := await self._close(found.closed):
                raise leak
            answers = await self._answers(found.asks)
            try:
                text = to_json(answers) if answers else ""
            except ValueError as fault:
                raise PolicyError(f"what it said cannot travel: {fault}") from None
            found = await self._call("answer" if answers else "end", text)
        return found.trajectory

    async def _answers(self, asks: tuple[Ask, ...]) -> PlayerAnswers | None:
        """Let every player that is asked act, all at once; ``None`` if the deadline was quicker."""
        with self._turnstile.waiting():
            try:
                acting = bounded(self._act_all(asks), max(0.0, self._seconds_left()), "the policy")
                return PlayerAnswers(answers=await acting)
            except Late:
                return None

    async def _act_all(self, asks: tuple[Ask, ...]) -> tuple[PlayerAnswer, ...]:
        if len(asks) == 1:
            return (await self._act(asks[0]),)
        async with asyncio.TaskGroup() as tasks:
            acting = [tasks.create_task(self._act(ask)) for ask in asks]
        return tuple(task.result() for task in acting)

    async def _act(self, ask: Ask) -> PlayerAnswer:
        try:
            completion = await act(self._session(ask), ask.observation)
        except EpisodeError as error:
            return PlayerAnswer(session=ask.session, error=str(error))
        if completion is None:
            return PlayerAnswer(session=ask.session, full=True)
        return PlayerAnswer(session=ask.session, message=completion.message, tokens=completion.tokens)

    def _session(self, ask: Ask) -> PolicySession:
        if ask.session not in self._sessions:
            player = self._players[ask.role]
            if isinstance(player, Expert):
                raise PolicyError("a script of the environment plays beside it, not here")
            with typed_errors(PolicyError):
                self._sessions[ask.session] = player.open(ask.observation.tools, ask.seed)
        return self._sessions[ask.session]

    async def _call(self, method: str, payload: str = "") -> Round:
        seconds = max(0.0, self._seconds_left()) + _GRACE_SECONDS
        found = from_json(Round, await self._worker.call(method, self._name, payload, seconds=seconds))
        if found.unknown:
            raise WorkerLost("the worker died between two turns, and was started anew")
        if found.refused:
            raise UserError(found.refused)
        return found

    async def _close(self, numbers: list[int] | tuple[int, ...]) -> EpisodeError | None:
        """Close sessions; return the first error instead of raising it."""
        failure: EpisodeError | None = None
        for number in numbers:
            session = self._sessions.pop(number, None)
            if session is None:  # it was opened, and never asked
                continue
            try:
                await cleaned(session.close, PolicyError)
            except EpisodeError as error:
                failure = failure or error
        return failure

    async def _cancel(self) -> None:
        """End the episode on the worker, if both are still there."""
        with contextlib.suppress(WorkerLost):
            await self._worker.call("cancel", self._name, "", seconds=_GRACE_SECONDS)

    def _seconds_left(self) -> float:
        return self._end - self._clock.now()
