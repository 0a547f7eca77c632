"""The groups of a step: quotas per environment, refilled for each by itself, what is left over kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from envgym.errors import UserError
from envgym.records import Message, Outcome, OutcomeKind, Score, Split, Task, Trajectory, Turn
from envgym.rollout.collector import Group
from envgym.rollout.mix import Mix, MixEntry
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.groups import GroupPlayer, GroupSource
from envgym_trainers.stages.rl import make_objective
from envgym_trainers.stages.step_groups import StepGroups

_SPREAD, _SOLVED, _FAILED, _LOST = [1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [None, None]
_TASKS = [Task(id=str(i), split="train", messages=()) for i in range(1000)]


class ScriptedCollector:
    """Plays groups whose scores were written down; the last entry of an environment's script repeats."""

    def __init__(self, scripts: dict[str, list[list[Any]]]) -> None:
        self.scripts = {label: list(script) for label, script in scripts.items()}
        self.played: Counter[str] = Counter()

    def tasks(self, label: str, split: Split) -> Sequence[Task]:
        return _TASKS if split == "train" else []

    async def group(self, label: str, task: Task, size: int, step: int) -> Group:
        script = self.scripts[label]
        scores = script.pop(0) if len(script) > 1 else script[0]
        self.played[label] += 1
        return group(label, task, scores)


def group(label: str, task: Task, scores: list[Any]) -> Group:
    made = []
    turn = Turn(messages=(), action=Message(role="assistant", content=""), metrics={"tool_calls": 2.0})
    for i, score in enumerate(scores):
        failed = score is None
        made.append(
            Trajectory(
                env=label,
                task=task,
                seed=i,
                turns=[turn],
                outcome=Outcome.failed(RuntimeError("x")) if failed else Outcome.completed(),
                score=None if failed else Score(value=score, accuracy=score),
            )
        )
    return Group(env=label, task=task, trajectories=made)


MakeSource = Callable[..., tuple[GroupSource, ScriptedCollector]]


@pytest.fixture
def make_source() -> MakeSource:
    """``make_source({"a": [scores of a group, …]}, sampling={…})``: equal weights, four groups a step."""

    def make(
        scripts: dict[str, list[list[Any]]], sampling: dict[str, Any] | None = None, **values: Any
    ) -> tuple[GroupSource, ScriptedCollector]:
        mix = [{"env": f"{label}-v1"} for label in scripts]
        recipe = ReinforcementRecipe.model_validate({"mix": mix, "groups": 4, "group_size": 2, **values})
        objective = make_objective({"name": "dapo", "dynamic_sampling": sampling})
        collector = ScriptedCollector(scripts)
        entries = [MixEntry.model_validate(entry) for entry in mix]
        mixed = Mix(entries, dict.fromkeys(scripts, len(_TASKS)), seed=0)
        return GroupSource(GroupPlayer(recipe, objective, cast(Any, collector), mixed)), collector

    return make


def _counts(groups: Sequence[Group]) -> dict[str, int]:
    return dict(Counter(group.env for group in groups))


async def test_without_dynamic_sampling_every_group_is_taken(make_source: MakeSource) -> None:
    source, _ = make_source({"a": [_SOLVED], "b": [_LOST]})
    result = await source.collect()
    assert _counts(result.groups) == {"a": 2, "b": 2}
    assert len(result.generated) == 4


async def test_each_environment_is_refilled_for_itself(make_source: MakeSource) -> None:
    """``a`` has a signal at once; ``b`` fails, solves, loses and only then differs. Quotas hold for both."""
    source, collector = make_source(
        {"a": [_SPREAD], "b": [_FAILED, _SOLVED, _LOST, _SPREAD]}, {"max_attempts": 10}
    )
    result = await source.collect()
    assert _counts(result.groups) == {"a": 2, "b": 2}
    assert collector.played == {"a": 2, "b": 5}
    b = result.counters["b"]
    assert (b["generated"], b["kept"], b["all_failed"], b["all_solved"], b["missing"]) == (5, 2, 1, 1, 1)
    assert len(result.generated) == 7, "what was played counts in the metrics, kept or not"


async def test_what_was_left_over_is_trained_on_first(make_source: MakeSource) -> None:
    source, collector = make_source({"a": [_SPREAD], "b": [_SPREAD]}, {})
    left = [group("a", _TASKS[900 + i], _SPREAD) for i in range(3)]
    source.carried["a"] = list(left)
    result = await source.collect()
    assert [g for g in result.groups if g.env == "a"] == left[:2]
    assert source.carried["a"] == left[2:]
    assert result.counters["a"]["surplus"] == 1
    assert collector.played == {"b": 2}
    result = await source.collect()
    assert left[2] in result.groups
    assert _counts(result.groups) == {"a": 2, "b": 2}
    assert source.carried["a"] == []


async def test_spent_attempts_say_so_or_train_on_what_there_is(make_source: MakeSource) -> None:
    source, _ = make_source({"a": [_SOLVED]}, {"max_attempts": 2, "at_cap": "raise"})
    with pytest.raises(ExceptionGroup) as caught:
        await source.collect()
    assert caught.group_contains(UserError, match="found 0 of 4 groups with a signal among 8")
    source, _ = make_source({"a": [_SOLVED, _SPREAD, _SOLVED]}, {"max_attempts": 2})
    assert len((await source.collect()).groups) == 1


async def test_the_random_control_decides_by_its_own_coin(make_source: MakeSource) -> None:
    """Groups that are all solved have a signal under random rewards; groups that differ may have none."""
    source, _ = make_source({"a": [_SOLVED]}, {"max_attempts": 20}, reward={"control": "random"})
    result = await source.collect()
    assert len(result.groups) == 4
    assert result.mean_rewards() == {"a": 1.0}, "what is reported is the true reward"


async def test_tasks_follow_the_mix(make_source: MakeSource) -> None:
    """No task twice before every task once; a restored mix goes on where the saved one was."""
    source, _ = make_source({"a": [_SPREAD]})
    first = await source.collect()
    state = source.snapshot()()
    second = await source.collect()
    drawn = [g.task.id for g in first.groups + second.groups]
    assert len(set(drawn)) == 8
    source.restore(state)
    again = await source.collect()
    assert [g.task.id for g in again.groups] == [g.task.id for g in second.groups]


def test_roles_have_mean_rewards_of_their_own() -> None:
    played = group("a", _TASKS[0], [1.0, None])
    for trajectory, scores in zip(played.trajectories, ([0.25, None], [0.75]), strict=True):
        trajectory.nested = group("inner", _TASKS[1], scores).trajectories
        for nested in trajectory.nested:
            nested.role = "verifier"
    row = StepGroups(generated=[played]).metrics()
    assert (row["reward/a"], row["reward/a/verifier"]) == (1.0, 0.5)
    assert row["episodes"] == 2


def test_endings_are_counted_by_reason() -> None:
    played = group("a", _TASKS[0], [1.0, 1.0, 0.0, None, 0.0])
    for trajectory, reason in zip(played.trajectories[1:3], ("tokens", "turns"), strict=True):
        trajectory.outcome = Outcome(kind=OutcomeKind.TRUNCATED, reason=reason)
    row = StepGroups(generated=[played], blockers={"x.f (x.py:1)": 2.0, "y": 0.5}).metrics()
    assert {k: v for k, v in row.items() if k.startswith("episodes_")} == {
        "episodes_failed": 1,
        "episodes_failed/RuntimeError": 1,
        "episodes_truncated": 2,
        "episodes_truncated/tokens": 1,
        "episodes_truncated/turns": 1,
    }
    assert row["loop_stalled_seconds"] == 2.5


def test_metrics_leave_missing_data_out_of_the_reward() -> None:
    played = [group("a", _TASKS[0], [1.0, None, 0.0]), group("b", _TASKS[0], [None])]
    row = StepGroups(generated=played, counters={"a": Counter(kept=1)}).metrics()
    assert row["reward/a"] == 0.5
    assert "reward/b" not in row
    assert (row["episodes"], row["episodes_failed"], row["episodes_truncated"]) == (4, 2, 0)
    assert (row["turns_mean"], row["tool_calls"], row["groups/a/kept"]) == (1, 8, 1)
