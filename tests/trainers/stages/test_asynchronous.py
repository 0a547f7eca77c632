"""Groups that go on while the model learns: the bound holds, nothing is lost, nothing is trained on twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.errors import UserError
from envgym.records import Message, Outcome, Score, Split, Task, Trajectory, Turn, TurnTokens
from envgym.rollout.collector import Group, TooManyFailures
from envgym.rollout.mix import Mix, MixEntry
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.asynchronous import AsynchronousSource
from envgym_trainers.stages.groups import GroupPlayer
from envgym_trainers.stages.rl import make_objective
from envgym_trainers.stages.steps import Step, Steps

_TASKS = [Task(id=str(i), split="train", messages=()) for i in range(10_000)]
_ACTION = Message(role="assistant", content="")


@dataclass
class World:
    """A collector and a learner that take so many passes of the event loop; the rest is real."""

    durations: Mapping[str, Sequence[int]]
    """Passes that the groups of an environment take, over and over."""
    silent: Sequence[bool] = (False,)
    """Which groups have no signal, over and over."""
    learning: Sequence[int] = (3,)
    version: int = 0
    begun: list[Group] = field(default_factory=list)
    """Every group, from its beginning on; one that has ended has trajectories."""
    cancelled: int = 0
    most: int = 0
    """Largest number of groups begun beyond those trained on."""

    def tasks(self, label: str, split: Split) -> Sequence[Task]:
        return _TASKS if split == "train" else []

    async def group(self, label: str, task: Task, size: int, visit: int) -> Group:
        number = len(self.begun)
        group = Group(env=label, task=task)
        self.begun.append(group)
        of_label = sum(other.env == label for other in self.begun) - 1
        passes = self.durations[label][of_label % len(self.durations[label])]
        try:
            versions = [self.version]
            for _ in range(passes):
                await asyncio.sleep(0)
                versions.append(self.version)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        quiet = self.silent[number % len(self.silent)]
        group.trajectories = [_played(label, task, versions, 1.0 if quiet else float(i % 2)) for i in range(size)]
        return group

    async def learn(self, groups: Sequence[Group], number: int) -> dict[str, float]:
        for _ in range(self.learning[number % len(self.learning)]):
            await asyncio.sleep(0)
        return {}

    async def publish(self, version: int) -> None:
        await asyncio.sleep(0)
        self.version = version


def _played(label: str, task: Task, versions: list[int], score: float) -> Trajectory:
    tokens = TurnTokens(
        prompt_ids=[1], completion_ids=versions, logprobs=[0.0] * len(versions), policy_version=min(versions)
    )
    return Trajectory(
        env=label,
        task=task,
        turns=[Turn(messages=(), action=_ACTION, tokens=tokens)],
        outcome=Outcome.completed(),
        score=Score(value=score, accuracy=score),
    )


def _source(
    world: World, staleness: int, steps: int, sampling: dict[str, Any] | bool = False, **values: Any
) -> AsynchronousSource:
    mix = [{"env": f"{label}-v1", "weight": 1.0 + (label == "b")} for label in world.durations]
    recipe = ReinforcementRecipe.model_validate({"mix": mix, "groups": 3, "group_size": 2, **values})
    entries = [MixEntry.model_validate(entry) for entry in mix]
    mixed = Mix(entries, dict.fromkeys(world.durations, len(_TASKS)), seed=0)
    objective = make_objective({"name": "dapo", "dynamic_sampling": sampling})
    player = GroupPlayer(recipe, objective, cast(Any, world), mixed)
    return AsynchronousSource(player, max_staleness=staleness, steps=steps, version=world.version)


async def _run(world: World, source: AsynchronousSource, steps: int) -> list[Step]:
    loop = Steps(source, world.learn, world.publish, done=world.version)
    taken: list[Step] = []
    async with source:
        while loop.done < steps:
            trained = sum(len(step.collected.groups) for step in taken)
            world.most = max(world.most, len(world.begun) - trained)
            taken.append(await asyncio.wait_for(loop.take(), 20))
    return taken


def _age(step: Step) -> int:
    """Staleness of the oldest token that a step trained on."""
    oldest = [turn.tokens.policy_version for t in _members(step) for turn in t.turns if turn.tokens]
    return step.number - 1 - min(oldest, default=step.number - 1)


def _members(step: Step) -> list[Trajectory]:
    return [t for group in step.collected.groups for t in group.trajectories]


_PASSES = st.lists(st.integers(0, 40), min_size=1, max_size=7)


@settings(max_examples=150, deadline=None)
@given(
    groups=st.integers(1, 4),
    staleness=st.integers(0, 4),
    durations=st.fixed_dictionaries({"a": _PASSES, "b": _PASSES}),
    learning=_PASSES,
    silent=st.lists(st.booleans(), min_size=1, max_size=5),
    sampling=st.sampled_from([False, {"max_attempts": 1}, {"max_attempts": 4}]),
)
def test_the_bound_holds_and_every_group_is_accounted_for(
    groups: int,
    staleness: int,
    durations: dict[str, list[int]],
    learning: list[int],
    silent: list[bool],
    sampling: dict[str, Any] | bool,
) -> None:
    """Whatever takes how long: no token is older than allowed, no group is trained on twice, none goes missing."""
    world = World(durations, silent, learning)

    async def run() -> list[Step]:
        return await _run(world, _source(world, staleness, 6, sampling, groups=groups), 6)

    steps = asyncio.run(run())
    trained = [id(group) for step in steps for group in step.collected.groups]
    ended = [id(group) for step in steps for group in step.collected.generated]
    assert max(map(_age, steps)) <= staleness
    assert len(set(trained)) == len(trained)
    assert set(trained) <= set(ended)
    assert len(set(ended)) == len(ended)
    counts = sum((c for step in steps for c in step.collected.counters.values()), Counter[str]())
    assert counts["generated"] == len(ended)
    assert counts["stale"] == 0, "what is begun is begun in time, and never thrown away"
    if sampling is False:
        assert [len(step.collected.groups) for step in steps] == [groups] * 6
        by_environment = Counter(group.env for step in steps for group in step.collected.groups)
        assert by_environment == {"a": 2 * groups, "b": 4 * groups}, "the mix keeps its quotas"
        assert len(world.begun) == len(trained), "nothing is begun that no step would train on"
        assert world.cancelled == 0
        assert world.most <= groups * (staleness + 1)
    else:
        assert counts["kept"] >= len(trained)
        assert len(world.begun) == len(ended) + world.cancelled


async def test_a_slow_group_stalls_no_step_within_the_bound() -> None:
    """One group takes as long as ten steps learn; of the first two steps neither waits, and the third does."""
    world = World({"a": [300, *[1] * 30]}, learning=[30])
    steps = await _run(world, _source(world, 2, 6), 6)
    slow = world.begun[0]
    assert [slow in step.collected.groups for step in steps] == [False, False, True, False, False, False]
    assert [_age(step) for step in steps][2] == 2


@pytest.mark.parametrize("staleness", [1, 3])
async def test_episodes_go_on_while_the_model_learns(staleness: int) -> None:
    """All that the bound allows is played during the first step's learning, and is older for it."""
    world = World({"a": [1]}, learning=[50])
    steps = await _run(world, _source(world, staleness, 8), 8)
    assert [_age(step) for step in steps] == [min(i, staleness) for i in range(8)]


async def test_older_weights_than_promised_are_dropped_and_counted() -> None:
    """An engine that lags behind what it was given: the group is not trained on, and another is begun."""

    class Lagging(World):
        async def group(self, label: str, task: Task, size: int, visit: int) -> Group:
            number = len(self.begun)
            group = await super().group(label, task, size, visit)
            if number == 4:
                group.trajectories = [_played(label, task, [-1], float(i)) for i in range(size)]
            return group

    world = Lagging({"a": [1]})
    steps = await _run(world, _source(world, 1, 4), 4)
    assert sum(c["stale"] for step in steps for c in step.collected.counters.values()) == 1
    assert max(map(_age, steps)) <= 1
    assert [len(step.collected.groups) for step in steps] == [3] * 4


async def test_a_failure_ends_the_run_at_the_next_step() -> None:
    class Failing(World):
        async def group(self, label: str, task: Task, size: int, visit: int) -> Group:
            if len(self.begun) == 4:
                raise TooManyFailures("too many")
            return await super().group(label, task, size, visit)

    world = Failing({"a": [1]})
    with pytest.raises(TooManyFailures, match="too many"):
        await _run(world, _source(world, 1, 4), 4)


async def test_spent_attempts_end_the_step_or_the_run() -> None:
    world = World({"a": [1]}, silent=[True])
    (step, *_) = await _run(world, _source(world, 1, 2, {"max_attempts": 2}), 2)
    assert step.collected.groups == []
    assert step.collected.counters["a"]["all_solved"] >= 6
    world = World({"a": [1]}, silent=[True, True, True, False])
    with pytest.raises(UserError, match=r"found \d of 3 groups with a signal among"):
        await _run(world, _source(world, 0, 2, {"max_attempts": 1, "at_cap": "raise"}), 2)


async def test_a_checkpoint_holds_what_has_finished_and_what_is_to_be_begun_again() -> None:
    """After a kill every task is played to its end once, and every group that ended is recorded once."""
    durations = {"a": [2, 9, 30, 4], "b": [1, 12]}
    world = World(durations, learning=[6])
    source = _source(world, 3, 9)
    loop = Steps(source, world.learn, world.publish)
    async with source:
        before = [await loop.take() for _ in range(4)]
        state = source.snapshot()()
    assert any(place["group"] is None for places in state["places"].values() for place in places)
    assert any(place["group"] is not None for places in state["places"].values() for place in places)
    again = World(durations, learning=[6], version=4)
    resumed = _source(again, 3, 9)
    resumed.restore(state)
    after = await _run(again, resumed, 9)
    steps = [*before, *after]
    assert max(map(_age, steps)) <= 3
    assert [len(step.collected.groups) for step in steps] == [3] * 9
    trained = [(g.env, g.task.id) for step in steps for g in step.collected.groups]
    recorded = [(g.env, g.task.id) for step in steps for g in step.collected.generated]
    assert len(set(trained)) == 27
    assert sorted(trained) == sorted(recorded)
    whole = World(durations, learning=[6])
    unbroken = await _run(whole, _source(whole, 3, 9), 9)
    assert sorted(trained) == sorted((g.env, g.task.id) for step in unbroken for g in step.collected.groups)
