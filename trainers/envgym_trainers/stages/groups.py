"""Collect the groups of one step: exact quotas per environment, refilled until they have a signal."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from envgym.env.clock import loop_clock
from envgym.errors import EpisodeError, UserError
from envgym.evaluate import distinct
from envgym.records import OutcomeKind, Task, Trajectory, problem_key
from envgym.rollout.collector import Group
from envgym.rollout.mix import Mix
from envgym_trainers.controls import controlled, mislabel
from envgym_trainers.objectives import Objective
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling, Refill, signal
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.setup import TrainingSetup
from envgym_trainers.truncation import masked

__all__ = ["GroupSource", "StepGroups"]


@dataclass(slots=True, kw_only=True)
class StepGroups:
    """Groups that one step collected."""

    groups: list[Group] = field(default_factory=list)
    """Groups to train on, those carried over from an earlier step included."""
    generated: list[Group] = field(default_factory=list)
    """Every group played in this step."""
    counters: dict[str, Counter[str]] = field(default_factory=dict)
    """Per environment: groups generated, kept, all_solved, all_failed, missing, surplus."""
    masked: Counter[str] = field(default_factory=Counter)
    """Trajectories that a limit cut and the recipe keeps out of training, by that limit; roles count too."""
    blockers: dict[str, float] = field(default_factory=dict)
    """Seconds for which the event loop was blocked, by the function that did it, with file and line."""
    abandoned: Counter[str] = field(default_factory=Counter)
    """Number of times that authors' code went on although it was cancelled, by the function."""

    @property
    def trajectories(self) -> list[Trajectory]:
        """Every trajectory played in this step."""
        return [t for group in self.generated for t in group.trajectories]

    def mean_rewards(self) -> dict[str, float]:
        """Return the mean reward of the trajectories played, before any control replaced it.

        Returns:
            means by environment, and by ``environment/role`` for nested episodes.
        """
        rewards: dict[str, list[float]] = {}
        for group in self.generated:
            for role, played in group.by_role().items():
                name = f"{group.env}/{role}" if role else group.env
                rewards.setdefault(name, []).extend(t.reward for t in played if not math.isnan(t.reward))
        return {label: sum(v) / len(v) for label, v in sorted(rewards.items()) if v}

    def endings(self) -> dict[str, Counter[str]]:
        """Return the numbers of episodes by environment and ``Trajectory.ending``."""
        found: dict[str, Counter[str]] = {}
        for group in self.generated:
            found.setdefault(group.env, Counter()).update(t.ending for t in group.trajectories)
        return found

    def metrics(self) -> dict[str, float]:
        """Return every count and mean, by flat name."""
        played = self.trajectories
        row = {f"reward/{label}": value for label, value in self.mean_rewards().items()}
        for label, counts in self.counters.items():
            row |= {f"groups/{label}/{name}": float(n) for name, n in counts.items()}
        for label, endings in self.endings().items():
            row |= {f"ended/{label}/{ending}": float(n) for ending, n in sorted(endings.items())}
        row["episodes"] = float(len(played))
        row["episodes_failed"] = float(sum(t.failed for t in played))
        row["episodes_truncated"] = float(sum(t.outcome.kind is OutcomeKind.TRUNCATED for t in played))
        endings = Counter(f"{t.outcome.kind.value}/{t.outcome.cause}" for t in played if t.outcome.cause)
        row |= {f"episodes_{ending}": float(n) for ending, n in sorted(endings.items())}
        row |= {f"episodes_masked/{limit}": float(n) for limit, n in sorted(self.masked.items())}
        row["loop_stalled_seconds"] = sum(self.blockers.values())
        row["abandoned"] = float(self.abandoned.total())
        row["turns_mean"] = sum(len(t.turns) for t in played) / max(1, len(played))
        for name in ("tool_calls", "tool_errors", "tool_malformed"):
            row[name] = sum(turn.metrics.get(name, 0.0) for t in played for turn in t.turns)
        return row


class GroupSource:
    """Draws tasks from the mix and plays groups of them.

    With dynamic sampling every environment is refilled separately, so that the mix keeps its quotas; surplus
    groups are carried to the next step.
    """

    def __init__(self, recipe: ReinforcementRecipe, objective: Objective, setup: TrainingSetup, mix: Mix) -> None:
        self._recipe = recipe
        self._collector = setup.collector
        self._settings = objective.needs().dynamic_sampling
        self.mix = mix
        self.carried: dict[str, list[Group]] = {label: [] for label in setup.labels}
        evaluated = (distinct(setup.collector.tasks(n, "held_out"), recipe.evaluate.tasks) for n in setup.labels)
        self._held_out = {problem_key(task) for tasks in evaluated for task in tasks}

    async def collect(self) -> StepGroups:
        """Play the groups of one step.

        Raises:
            UserError: dynamic sampling spent its attempts and ``at_cap`` is ``raise``.
            TooManyFailures: more episodes failed than the recipe allows.
        """
        clock = loop_clock()
        earlier, abandoned = dict(clock.culprits), Counter(clock.abandoned)
        quotas = {label: n for label, n in self.mix.quotas(self._recipe.groups).items() if n}
        result = StepGroups(counters={label: Counter() for label in quotas})
        async with asyncio.TaskGroup() as tasks:
            filled = {
                label: tasks.create_task(self._fill(label, quota, result)) for label, quota in quotas.items()
            }
        for task in filled.values():
            result.groups += task.result()
        # Environments are filled in any order; records are the same whichever was first.
        place = {label: i for i, label in enumerate(quotas)}
        result.generated.sort(key=lambda group: place[group.env])
        everyone = (t for group in result.generated for played in group.by_role().values() for t in played)
        result.masked.update(t.outcome.cause for t in everyone if masked(self._recipe.truncated, t))
        seconds = {who: total - earlier.get(who, 0.0) for who, total in clock.culprits.items()}
        result.abandoned = clock.abandoned - abandoned
        result.blockers = {who: value for who, value in seconds.items() if value > 0}
        return result

    async def _fill(self, label: str, quota: int, result: StepGroups) -> list[Group]:
        if self._settings is None:
            async with asyncio.TaskGroup() as tasks:
                begun = [tasks.create_task(self._play(label)) for _ in range(quota)]
            groups = [task.result() for task in begun]
            result.generated += groups
            result.counters[label] = Counter(generated=quota)
            result.counters[label].update(signal(self._success(group)).value for group in groups)
            return groups
        return await self._refill(label, quota, result, self._settings)

    async def _refill(self, label: str, quota: int, result: StepGroups, settings: DynamicSampling) -> list[Group]:
        """Begin another group as soon as one proves to have no signal, so that no wave waits for its slowest."""
        refill = Refill(quota, settings, carried=self.carried[label])
        begun: list[asyncio.Task[Group]] = []
        running: set[asyncio.Task[Group]] = set()
        async with asyncio.TaskGroup() as tasks:
            while running or refill.wanted(0):
                fresh = [tasks.create_task(self._play(label)) for _ in range(refill.wanted(len(running)))]
                begun += fresh
                finished, running = await asyncio.wait(running.union(fresh), return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    group = task.result()
                    # Launch order: taking the groups that finish first would bias the step to short episodes.
                    refill.offer(begun.index(task), group, self._success(group))
        result.generated += [task.result() for task in begun]
        groups, counters = refill.take()
        self.carried[label] = list(refill.carried)
        result.counters[label] = Counter(asdict(counters))
        return groups

    def _success(self, group: Group) -> list[float]:
        """Return each member's unshaped success, as the recipe's reward has it; NaN where it takes no part."""
        recipe = self._recipe
        return [controlled(recipe.reward, recipe.truncated, t)[1] for t in group.trajectories]

    def _play(self, label: str) -> Coroutine[Any, Any, Group]:
        """Draw the next task and play a group of it."""
        tasks = self._collector.tasks(label, "train")
        visit, index = self._draw(label, tasks)
        if self._recipe.reward.control == "wrong_label":
            return self._mislabelled(label, tasks, index, visit)
        return self._collector.group(label, tasks[index], self._recipe.group_size, visit)

    def _draw(self, label: str, tasks: Sequence[Task]) -> tuple[int, int]:
        """Return the number of the visit and the index of the next task, none whose problem is evaluated on.

        Splits keep the problems of one environment apart; two entries of a mix may still share some.

        Raises:
            UserError: there is no other task.
        """
        for _ in tasks:
            visit, index = self.mix.draws(label), self.mix.draw(label)
            if problem_key(tasks[index]) not in self._held_out:
                return visit, index
        raise UserError(f"{label}: every training task asks a problem that this run evaluates on; change the mix")

    async def _mislabelled(self, label: str, tasks: Sequence[Task], index: int, visit: int) -> Group:
        """Play a group, and keep the scores that the reference of the next task gives it.

        Raises:
            EpisodeError: the verifier failed for every member; where it fails for some, they are missing data.
        """
        group = await self._collector.group(label, tasks[index], self._recipe.group_size, visit)
        played = [trajectory for trajectory in group.trajectories if not trajectory.failed]
        errors: list[EpisodeError] = []
        for trajectory in played:
            try:
                other = tasks[(index + 1) % len(tasks)]
                await mislabel(self._collector.prototype(label), self._recipe.truncated, trajectory, other)
            except EpisodeError as error:
                errors.append(error)
        if errors and len(errors) == len(played):
            raise errors[-1]
        return group
