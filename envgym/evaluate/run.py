"""Evaluate a policy on the first tasks of a split, through the same rollouts that training uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean as mean

from envgym.evaluate.intervals import Interval, mean_interval, paired_gain
from envgym.policies.scripted import Player
from envgym.records import OutcomeKind, Split, Task, Trajectory, problem_key
from envgym.rollout.collector import Collector

__all__ = ["EnvScores", "distinct", "evaluate"]


@dataclass(slots=True, kw_only=True)
class EnvScores:
    """Scores of one environment, averaged over the samples of each task."""

    rewards: dict[str, float] = field(default_factory=dict)
    """Mean reward by task id; tasks whose episodes all failed are absent."""
    accuracies: dict[str, float] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    """Means of the score's components and metrics, by name and then by task id. A metric that a task does not
    define, such as over-refusal where refusing is right, is absent for it."""
    ended: dict[str, int] = field(default_factory=dict)
    """Numbers of episodes by ``Trajectory.ending``."""
    span: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest reward that the environment declares."""
    tokens: int = 0
    turns: int = 0

    @property
    def episodes(self) -> int:
        """Number of episodes played."""
        return sum(self.ended.values())

    @property
    def failed(self) -> int:
        """Number of episodes that are missing data."""
        return sum(n for ending, n in self.ended.items() if ending.startswith(OutcomeKind.FAILED))

    def interval(self) -> Interval:
        """Return the mean reward with its interval."""
        return mean_interval(list(self.rewards.values()), self.span)

    def accuracy(self) -> Interval:
        """Return the mean unshaped success with its interval."""
        return mean_interval(list(self.accuracies.values()))

    def part(self, name: str) -> Interval:
        """Return the mean of a component or metric with its interval; NaN where no task defines it."""
        return mean_interval(list(self.parts.get(name, {}).values()))

    def gain_over(self, old: EnvScores) -> Interval:
        """Return the mean reward less that of ``old``, paired by the tasks that both have, with its interval."""
        both = sorted(old.rewards.keys() & self.rewards.keys())
        return paired_gain([old.rewards[i] for i in both], [self.rewards[i] for i in both], self.span)


async def evaluate(
    collector: Collector,
    labels: Sequence[str],
    *,
    split: Split,
    limit: int,
    samples: int = 1,
    policy: Player | None = None,
    on_episode: Callable[[Trajectory], None] = lambda _: None,
) -> dict[str, EnvScores]:
    """Play the first ``limit`` distinct tasks of each environment ``samples`` times.

    The episodes' seeds depend only on the run's seed, the task and the sample, so that the scores of two policies
    are paired.

    Args:
        collector: plays the episodes.
        labels: environments to evaluate on.
        split: split of the tasks.
        limit: maximum number of tasks per environment.
        samples: episodes per task.
        policy: acts instead of the collector's own.
        on_episode: called with each episode as it ends.

    Raises:
        UserError: data is missing or malformed.
        ExceptionGroup: of ``UserError`` or ``TooManyFailures``, raised while episodes are played.
    """
    scores = {label: EnvScores(span=collector.prototype(label).reward_range) for label in labels}
    jobs = [
        (label, task, sample)
        for label in labels
        for task in distinct(collector.tasks(label, split), limit)
        for sample in range(samples)
    ]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_play(collector, policy, on_episode, *job)) for job in jobs]
    by_task: dict[tuple[str, str], list[Trajectory]] = {}
    for job in running:
        trajectory = job.result()
        into = scores[trajectory.env]
        into.ended[trajectory.ending] = into.ended.get(trajectory.ending, 0) + 1
        into.tokens += trajectory.sampled_tokens
        into.turns += len(trajectory.turns)
        if not trajectory.failed:
            by_task.setdefault((trajectory.env, trajectory.task.id), []).append(trajectory)
    for (label, task_id), played in by_task.items():
        into = scores[label]
        into.rewards[task_id] = mean(t.reward for t in played)
        given = [t.score for t in played if t.score is not None]
        into.accuracies[task_id] = mean(score.accuracy for score in given)
        parts = [score.components | score.metrics for score in given]
        for name in sorted({name for part in parts for name in part}):
            into.parts.setdefault(name, {})[task_id] = mean(part[name] for part in parts if name in part)
    return scores


def distinct(tasks: Iterable[Task], limit: int) -> list[Task]:
    """Return the first ``limit`` tasks of different problems; a sequence may repeat one in other words."""
    found: dict[str, Task] = {}
    for task in tasks:
        found.setdefault(problem_key(task), task)
        if len(found) == limit:
            break
    return list(found.values())


async def _play(
    collector: Collector,
    policy: Player | None,
    on_episode: Callable[[Trajectory], None],
    label: str,
    task: Task,
    sample: int,
) -> Trajectory:
    trajectory = await collector.episode(label, task, sample, policy=policy)
    on_episode(trajectory)
    return trajectory
