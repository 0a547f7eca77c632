"""Play the groups of a step: exact quotas per environment, refilled until they have a signal."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from envgym.errors import EpisodeError, UserError
from envgym.evaluate import distinct
from envgym.records import Task, from_json, problem_key, to_json
from envgym.rollout.collector import Collector, Group
from envgym.rollout.mix import Mix
from envgym_trainers.controls import controlled, mislabel
from envgym_trainers.objectives import Objective
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling, Refill, signal
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.step_groups import Disturbances, StepGroups
from envgym_trainers.stages.steps import Source

__all__ = ["GroupPlayer", "GroupSource"]


class GroupPlayer:
    """Draws tasks from the mix and plays groups of them.

    Args:
        recipe: the run's recipe.
        objective: says whether groups need a signal.
        collector: plays the episodes.
        mix: the environments, with their training tasks.
    """

    def __init__(self, recipe: ReinforcementRecipe, objective: Objective, collector: Collector, mix: Mix) -> None:
        self.recipe = recipe
        self.settings: DynamicSampling | None = objective.needs().dynamic_sampling
        """How groups without a signal are replaced; ``None`` where all are trained on."""
        self.mix = mix
        self.collector = collector
        evaluated = (distinct(collector.tasks(n, "held_out"), recipe.evaluate.tasks) for n in mix.entries)
        self._held_out = {problem_key(task) for tasks in evaluated for task in tasks}

    def success(self, group: Group) -> list[float]:
        """Return each member's unshaped success, as the recipe's reward has it; NaN where it takes no part."""
        recipe = self.recipe
        return [controlled(recipe.reward, recipe.truncated, t)[1] for t in group.trajectories]

    def play(self, label: str, visit: int, index: int) -> Coroutine[Any, Any, Group]:
        """Play a group of a task that ``draw`` returned."""
        tasks = self.collector.tasks(label, "train")
        if self.recipe.reward.control == "wrong_label":
            return self._mislabelled(label, tasks, index, visit)
        return self.collector.group(label, tasks[index], self.recipe.group_size, visit)

    def draw(self, label: str) -> tuple[int, int]:
        """Return the number of the visit and the index of the next task, none whose problem is evaluated on.

        Splits keep the problems of one environment apart; two entries of a mix may still share some.

        Raises:
            UserError: there is no other task.
        """
        tasks = self.collector.tasks(label, "train")
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
        group = await self.collector.group(label, tasks[index], self.recipe.group_size, visit)
        played = [trajectory for trajectory in group.trajectories if not trajectory.failed]
        errors: list[EpisodeError] = []
        for trajectory in played:
            try:
                other = tasks[(index + 1) % len(tasks)]
                await mislabel(self.collector.prototype(label), self.recipe.truncated, trajectory, other)
            except EpisodeError as error:
                errors.append(error)
        if errors and len(errors) == len(played):
            raise errors[-1]
        return group


class GroupSource(Source):
    """Plays the groups of a step and returns when the last has ended.

    With dynamic sampling every environment is refilled separately, so that the mix keeps its quotas; surplus
    groups are carried to the next step.

    Args:
        player: plays the groups.
    """

    def __init__(self, player: GroupPlayer) -> None:
        self._player = player
        self.carried: dict[str, list[Group]] = {label: [] for label in player.mix.entries}

    async def collect(self) -> StepGroups:
        """Play the groups of one step; see ``Source.collect``."""
        disturbances = Disturbances()
        quotas = {label: n for label, n in self._player.mix.quotas(self._player.recipe.groups).items() if n}
        result = StepGroups(counters={label: Counter() for label in quotas})
        async with asyncio.TaskGroup() as tasks:
            filled = {
                label: tasks.create_task(self._fill(label, quota, result)) for label, quota in quotas.items()
            }
        for task in filled.values():
            result.groups += task.result()
        result.conclude(self._player.recipe, disturbances)
        return result

    async def _fill(self, label: str, quota: int, result: StepGroups) -> list[Group]:
        if self._player.settings is None:
            async with asyncio.TaskGroup() as tasks:
                begun = [tasks.create_task(self._play(label)) for _ in range(quota)]
            groups = [task.result() for task in begun]
            result.generated += groups
            result.counters[label] = Counter(generated=quota)
            result.counters[label].update(signal(self._player.success(group)).value for group in groups)
            return groups
        return await self._refill(label, quota, result, self._player.settings)

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
                    refill.offer(begun.index(task), group, self._player.success(group))
        result.generated += [task.result() for task in begun]
        groups, counters = refill.take()
        self.carried[label] = list(refill.carried)
        result.counters[label] = Counter(asdict(counters))
        return groups

    def _play(self, label: str) -> Coroutine[Any, Any, Group]:
        return self._player.play(label, *self._player.draw(label))

    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """Return what writes down the state of the mix and the groups carried over; see ``Source.snapshot``."""
        mix, carried = self._player.mix.state(), dict(self.carried)

        def write() -> dict[str, Any]:
            return {
                "mix": mix,
                "carried": {n: [to_json(group) for group in groups] for n, groups in carried.items()},
            }

        return write

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue; see ``Source.restore``."""
        self._player.mix.restore(state["mix"])
        self.carried |= {
            label: [from_json(Group, text) for text in groups] for label, groups in state["carried"].items()
        }
