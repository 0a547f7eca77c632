"""A worker: plays episodes for policies that are elsewhere. What comes in and goes out is JSON text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from envgym.env.services import Services
from envgym.errors import EnvironmentFailure, PolicyError, UserError
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.policies.scripted import Expert, Novice, Player
from envgym.records import Observation, Outcome, ToolSpec, Trajectory, from_json, to_json
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry
from envgym.rollout.turnstile import Turnstile
from envgym.rollout.wire import Ask, EpisodeSpec, PlayerAnswer, PlayerAnswers, PlayerReference, Round

__all__ = ["EpisodeWorker"]


class EpisodeWorker:
    """Plays any number of episodes at once, in the running event loop.

    Args:
        services: sandbox and judge of this machine; closed with the worker.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._collectors: dict[str, Collector] = {}
        self._episodes: dict[str, _Episode] = {}

    async def call(self, method: str, episode: str, payload: str) -> str:
        """Serve one call.

        Args:
            method: ``begin`` with an ``EpisodeSpec``; ``answer`` with the ``PlayerAnswers`` to the last round;
                ``end`` awaits the end of an episode without an answer; ``cancel`` ends it.
            episode: the episode's name, which the caller chose.
            payload: what the method takes.

        Returns:
            the episode's next ``Round``.
        """
        if method == "begin":
            spec = from_json(EpisodeSpec, payload)
            try:
                collector = self._collector(spec.entry)
            except UserError as error:
                return to_json(Round(refused=str(error)))
            self._episodes[episode] = _Episode(collector, spec)
        playing = self._episodes.get(episode)
        if playing is None:
            return to_json(Round(unknown=True))
        match method:
            case "answer":
                playing.answer(from_json(PlayerAnswers, payload).answers)
            case "end":
                await playing.over()
            case "cancel":
                await playing.cancel()
        found = await playing.round()
        try:
            text = to_json(found)
        except ValueError as fault:
            await playing.cancel()
            text = to_json(Round(trajectory=playing.failed(f"what it said cannot travel: {fault}")))
        if playing.task.done():
            self._episodes.pop(episode, None)  # a call that it cancelled may have done so
        return text

    async def close(self) -> None:
        """Cancel every episode, and close the environments and services."""
        await asyncio.gather(*(playing.cancel() for playing in self._episodes.values()))
        for collector in self._collectors.values():
            await collector.close()
        await self._services.close()

    def _collector(self, entry: MixEntry) -> Collector:
        key = to_json(entry)
        if key not in self._collectors:
            self._collectors[key] = Collector([entry], Expert(), self._services)
        return self._collectors[key]


class _Episode:
    """One episode under way, and what it waits for."""

    def __init__(self, collector: Collector, spec: EpisodeSpec) -> None:
        self._spec = spec
        self._turnstile = Turnstile(1)
        self._news = asyncio.Event()
        self._asks: dict[int, Ask] = {}
        self._answers: dict[int, asyncio.Future[PlayerAnswer]] = {}
        self._closed: list[int] = []
        self._sessions = 0
        player = self._player("", spec.policy)
        roles = {role: self._player(role, reference) for role, reference in spec.roles.items()}
        self.task = asyncio.create_task(self._play(collector, spec, player, roles))
        self.task.add_done_callback(lambda _: self._news.set())

    async def _play(
        self, collector: Collector, spec: EpisodeSpec, player: Player, roles: Mapping[str, Player]
    ) -> Trajectory:
        await self._turnstile.enter((spec.entry.label,))
        try:
            return await collector.play(spec, player, roles, self._turnstile)
        finally:
            self._turnstile.leave()

    def _player(self, role: str, reference: PlayerReference) -> Player:
        return {"gold": Expert, "novice": Novice}[reference]() if reference != "caller" else _Relay(self, role)

    def open(self, role: str, seed: int) -> _RelayedSession:
        self._sessions += 1
        return _RelayedSession(self, role, seed, self._sessions)

    async def ask(self, ask: Ask) -> PlayerAnswer:
        self._asks[ask.session] = ask
        answer: asyncio.Future[PlayerAnswer] = asyncio.get_running_loop().create_future()
        self._answers[ask.session] = answer
        self._news.set()
        return await answer

    def close_session(self, session: int) -> None:
        self._asks.pop(session, None)
        self._closed.append(session)

    def answer(self, answers: Sequence[PlayerAnswer]) -> None:
        for answer in answers:
            self._asks.pop(answer.session, None)
            future = self._answers.pop(answer.session)
            if not future.done():  # the deadline was quicker
                future.set_result(answer)

    async def over(self) -> None:
        await asyncio.wait([self.task])

    async def cancel(self) -> None:
        self.task.cancel()
        await self.over()

    def failed(self, reason: str) -> Trajectory:
        spec, outcome = self._spec, Outcome.failed(EnvironmentFailure(reason))
        return Trajectory(env=spec.entry.label, task=spec.task, seed=spec.seed, outcome=outcome)

    async def round(self) -> Round:
        """Wait until the episode is over, or every part of it waits for the caller."""
        while not self.task.done():
            await self._news.wait()
            self._news.clear()
            if self._sessions > 1:
                await self._turnstile.settled()
            if self._asks and not self.task.done():
                closed, self._closed = tuple(self._closed), []
                return Round(asks=tuple(self._asks.values()), closed=closed)
        if self.task.cancelled():
            return Round()
        error = self.task.exception()
        if isinstance(error, UserError):
            return Round(refused=str(error))
        return Round(trajectory=self.task.result())


class _Relay(Policy):
    """A player of the caller's."""

    def __init__(self, episode: _Episode, role: str) -> None:
        super().__init__()
        self._episode = episode
        self._role = role

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return self._episode.open(self._role, seed)


class _RelayedSession(PolicySession):
    def __init__(self, episode: _Episode, role: str, seed: int, number: int) -> None:
        self._episode = episode
        self._role = role
        self._seed = seed
        self._number = number
        self._open = True

    async def act(self, observation: Observation) -> Completion:
        ask = Ask(session=self._number, role=self._role, seed=self._seed, observation=observation)
        answer = await self._episode.ask(ask)
        if answer.full:
            raise ContextFull
        if answer.message is None:
            raise PolicyError(answer.error)
        return Completion(message=answer.message, tokens=answer.tokens)

    async def close(self) -> None:
        if self._open:
            self._open = False
            self._episode.close_session(self._number)
