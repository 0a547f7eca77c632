"""Run many episodes concurrently, with a limit, retries and counts."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from envgym.env.bounded import Late, bounded
from envgym.env.chat_env import ChatEnv
from envgym.env.services import Services
from envgym.errors import EnvgymError, EnvironmentFailure, EpisodeError, EpisodeTimeout, EventLoopBlocked
from envgym.policies.scripted import Player
from envgym.records import Outcome, Score, Split, Task, Trajectory
from envgym.rollout.cluster import Cluster
from envgym.rollout.episode import discard, rollout, typed_errors
from envgym.rollout.garbage import PatientGarbageCollector
from envgym.rollout.mix import MixEntry
from envgym.rollout.remote import play_on
from envgym.rollout.turnstile import Turnstile
from envgym.rollout.wire import EpisodeSpec
from envgym.seeding import derive_seed

__all__ = ["Collector", "Group", "TooManyFailures"]

_FAILURES_BEFORE_JUDGING = 16
_patience = PatientGarbageCollector()
_LOG = logging.getLogger(__name__)


class TooManyFailures(EnvgymError):
    """More episodes failed than the run allows; the message names the last error."""


@dataclass(slots=True, kw_only=True)
class Group:
    """G trajectories of the same task; failed ones are kept and marked."""

    env: str
    task: Task
    trajectories: list[Trajectory] = field(default_factory=list)

    @property
    def rewards(self) -> list[float]:
        """Return of each trajectory, NaN where it is missing data. [G]"""
        return [t.reward for t in self.trajectories]

    @property
    def accuracies(self) -> list[float]:
        """Unshaped success of each trajectory, NaN where it is missing data. [G]"""
        return [math.nan if t.failed or t.score is None else t.score.accuracy for t in self.trajectories]

    def by_role(self) -> dict[str, list[Trajectory]]:
        """Return the trajectories by role: the group's own under ``""``, then those nested in them at any depth.

        Rewards are normalised within each role, because roles are rewarded for different things.
        """
        roles: dict[str, list[Trajectory]] = {"": self.trajectories}
        found = [nested for member in self.trajectories for nested in _nested(member)]
        for trajectory in found:
            roles.setdefault(trajectory.role, []).append(trajectory)
        return roles


def _nested(trajectory: Trajectory) -> Iterator[Trajectory]:
    for inner in trajectory.nested:
        yield inner
        yield from _nested(inner)


class Collector:
    """Plays episodes of a set of environments with one policy, and those nested in them with it or others.

    Episodes run in this process, or on the workers of a cluster. Here, instances of an environment are reused, one
    episode at a time; an instance whose episode failed is replaced.

    Args:
        entries: the environments, by label.
        policy: acts in every episode, also for the roles that ``roles`` leaves out.
        services: shared by the environments.
        seed: the run's seed.
        concurrency: maximum number of episodes in flight.
        retries: further attempts at a failed episode.
        deadline: seconds for one attempt.
        failure_limit: share of failed episodes above which ``TooManyFailures`` ends the run.
        roles: policies of the roles in nested episodes. Like ``policy``, they are closed by the caller.
        cluster: plays the episodes, opened and closed by the caller; tasks are listed and groups compared here.
    """

    def __init__(
        self,
        entries: Sequence[MixEntry],
        policy: Player,
        services: Services,
        *,
        seed: int = 0,
        concurrency: int = 64,
        retries: int = 1,
        deadline: float = 600.0,
        failure_limit: float = 0.5,
        roles: Mapping[str, Player] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.policy = policy
        self.roles = dict(roles or {})
        self.seed = seed
        self._entries = {e.label: e for e in entries}
        self._services = services
        self.turnstile = Turnstile(concurrency)
        """Knows which episodes are at work, for an engine that samples only when none is."""
        self._retries = retries
        self._deadline = deadline
        self._cluster = cluster
        self._failure_limit = failure_limit
        self._idle: dict[str, list[ChatEnv]] = {label: [] for label in self._entries}
        self._prototypes = {label: entry.make(services) for label, entry in self._entries.items()}
        self.counts: Counter[str] = Counter()
        self._in_flight = 0
        self._verdict = ""

    @property
    def in_flight(self) -> int:
        """Number of episodes under way, those that wait for their turn left out."""
        return self._in_flight

    def tasks(self, label: str, split: Split) -> Sequence[Task]:
        """Return the tasks of one environment.

        Raises:
            UserError: the environment's data is missing or malformed.
        """
        return self._prototypes[label].task_list(split)

    def prototype(self, label: str) -> ChatEnv:
        """Return an instance that plays no episodes: it has the tasks, and scores what others played."""
        return self._prototypes[label]

    async def episode(
        self, label: str, task: Task, sample: int, round_: int = 0, policy: Player | None = None
    ) -> Trajectory:
        """Play one episode, again if it fails, at most ``retries`` times, and after a timeout at most once.

        Args:
            label: label of the environment.
            task: the task to play.
            sample: index among the samples of the task; seeds the draws.
            round_: number of earlier visits to the task, so that a second visit draws anew.
            policy: acts instead of the collector's own.

        Returns:
            the first trajectory that did not fail, or the last one that did.

        Raises:
            UserError: the request cannot be carried out as written.
            TooManyFailures: the run's failed share is over the limit.
        """
        await self.turnstile.enter((label, f"{round_:09d}", task.id, f"{sample:09d}"))
        try:
            return await self._tried(label, task, sample, round_, policy or self.policy)
        finally:
            self.turnstile.leave()

    async def _tried(self, label: str, task: Task, sample: int, round_: int, policy: Player) -> Trajectory:
        with _patience:
            for attempt in range(self._retries + 1):
                seed = derive_seed("episode", self.seed, label, task.id, round_, sample, attempt) % 2**32
                self._in_flight += 1
                try:
                    trajectory = await self._attempt(label, task, seed, policy)
                finally:
                    self._in_flight -= 1
                self._count(trajectory)
                # A task that is slow by nature would use up its deadline once for each retry.
                late = trajectory.outcome.cause in (EpisodeTimeout.__name__, EventLoopBlocked.__name__)
                if not trajectory.failed or (late and attempt >= 1):
                    break
            return trajectory

    async def _attempt(self, label: str, task: Task, seed: int, policy: Player) -> Trajectory:
        spec = EpisodeSpec(entry=self._entries[label], task=task, seed=seed, deadline=self._deadline)
        if self._cluster is not None:
            return await play_on(self._cluster, spec, policy, self.roles, self.turnstile)
        return await self.play(spec, policy, self.roles, self.turnstile)

    async def play(
        self, spec: EpisodeSpec, policy: Player, roles: Mapping[str, Player], turnstile: Turnstile
    ) -> Trajectory:
        """Play one episode once, in this process; it is not counted. See ``rollout``.

        Args:
            spec: what to play, except who acts.
            policy: acts in the episode, and for the roles that ``roles`` leaves out.
            roles: players of roles in nested episodes.
            turnstile: has let the episode in.
        """
        label = spec.entry.label
        env = self._idle[label].pop() if self._idle[label] else self._fresh(label)
        # A failed or cancelled episode may leave its instance in any state: only a clean one is reused.
        reusable = False
        try:
            trajectory = await rollout(
                env,
                policy,
                spec.task,
                name=label,
                seed=spec.seed,
                deadline=spec.deadline,
                roles=roles,
                turnstile=turnstile,
            )
            reusable = not trajectory.failed
            return trajectory
        finally:
            if reusable:
                self._idle[label].append(env)
            else:
                await self._discard(env)

    async def _discard(self, env: ChatEnv) -> None:
        try:
            await discard(env)
        except EpisodeError as error:
            self.counts["not_closed"] += 1
            _LOG.warning("an environment could not be closed: %s", error)

    async def group(self, label: str, task: Task, size: int, round_: int = 0) -> Group:
        """Play ``size`` episodes of one task concurrently, then score them against each other.

        If ``score_group`` fails, the whole group is missing data.

        Raises:
            ExceptionGroup: of the errors that ``episode`` raises.
            UserError: ``score_group`` asks for something that is not available, e.g. a judge.
            TooManyFailures: the run's failed share is over the limit.
        """
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.episode(label, task, i, round_)) for i in range(size)]
        group = Group(env=label, task=task, trajectories=[t.result() for t in running])
        await self._score_together(group)
        return group

    async def _score_together(self, group: Group) -> None:
        finished = [t for t in group.trajectories if not t.failed]
        if not finished:
            return
        try:
            with self.turnstile.working(), typed_errors(EnvironmentFailure):
                scores = await self._together(self._prototypes[group.env], finished)
        except EpisodeError as error:
            self._lose(finished, error)
        else:
            for trajectory, score in zip(finished, scores, strict=True):
                trajectory.score = score

    async def _together(self, env: ChatEnv, finished: Sequence[Trajectory]) -> list[Score]:
        try:
            return await bounded(env.rescore_group(finished), self._deadline, f"{type(env).__name__}.score_group")
        except Late as late:
            raise EpisodeTimeout(f"score_group() took longer than {self._deadline:g} s, {late}") from None

    def _lose(self, trajectories: Sequence[Trajectory], error: EpisodeError) -> None:
        for trajectory in trajectories:
            trajectory.outcome, trajectory.score = Outcome.failed(error), None
            self._count_failure(trajectory)

    async def close(self) -> None:
        """Close every environment instance, in bounded time; the caller closes policies and services.

        One that cannot be closed is counted as ``not_closed`` and logged: what was played keeps its worth.
        """
        self.turnstile.close()
        idle, self._idle = self._idle, {label: [] for label in self._entries}
        for env in (*self._prototypes.values(), *(e for envs in idle.values() for e in envs)):
            await self._discard(env)

    def _fresh(self, label: str) -> ChatEnv:
        env = self._entries[label].make(self._services)
        env.share_tasks(self._prototypes[label])
        return env

    def _count(self, trajectory: Trajectory) -> None:
        self.counts["episodes"] += 1
        if trajectory.failed:
            self._count_failure(trajectory)

    def _count_failure(self, trajectory: Trajectory) -> None:
        self.counts["failed"] += 1
        self.counts[f"failed/{trajectory.outcome.cause}"] += 1
        # Failures tend to end sooner than successes, so early counts overstate their share: count the episodes in
        # flight as successes until they end.
        failed, total = self.counts["failed"], self.counts["episodes"] + self._in_flight
        if not self._verdict and failed >= _FAILURES_BEFORE_JUDGING and failed / total > self._failure_limit:
            self._verdict = (
                f"{failed} of {total} episodes failed, more than the limit of {self._failure_limit:.0%}; "
                f"the last one: {trajectory.env}: {trajectory.outcome.reason}"
            )
        # The verdict stands: a later failure raises it even if the share has fallen back under the limit.
        if self._verdict:
            raise TooManyFailures(self._verdict)
