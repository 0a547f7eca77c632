"""Evaluation is paired, leaves missing data out and counts it, and measures distinct problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from toys import Adder

from envgym.env.services import Services
from envgym.errors import UserError
from envgym.evaluate import EnvScores, distinct, evaluate
from envgym.policies.interface import Policy
from envgym.policies.scripted import EmptyPolicy, Expert, RandomPolicy
from envgym.records import Trajectory
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    Adder.instances.clear()
    yield
    Adder.instances.clear()


def collector_of(policy: Policy, seed: int = 0, labels: tuple[str, ...] = ("sums",), **toy: Any) -> Collector:
    entries = [MixEntry(env="toys:Adder", name=label, settings=toy) for label in labels]
    return Collector(entries, policy, Services(), seed=seed, retries=0)


async def scores_of(collector: Collector, limit: int = 5, samples: int = 1) -> EnvScores:
    return (await evaluate(collector, ["sums"], split="held_out", limit=limit, samples=samples))["sums"]


async def test_scores_are_by_task_and_averaged_over_samples() -> None:
    scores = await scores_of(collector_of(Expert()), limit=5, samples=3)
    assert set(scores.rewards.values()) == set(scores.accuracies.values()) == {1.0}
    assert len(scores.rewards) == 5
    assert (scores.episodes, scores.failed, scores.turns) == (15, 0, 15)
    assert scores.parts == {"right": scores.rewards}
    assert set((await scores_of(collector_of(EmptyPolicy()))).rewards.values()) == {0.0}


async def test_a_list_that_repeats_itself_is_measured_on_distinct_tasks() -> None:
    """Addends below 4 make 16 problems, about three of them held out; the list draws each many times."""
    collector = collector_of(Expert(), numbers=4, size=200)
    tasks = collector.tasks("sums", "held_out")
    different = {t.id for t in tasks}
    scores = await scores_of(collector, limit=100)
    assert scores.rewards.keys() == different
    assert scores.episodes == len(different) < 16
    assert [t.id for t in distinct(tasks, 2)] == list(dict.fromkeys(t.id for t in tasks))[:2]


async def test_two_policies_see_the_same_tasks_with_the_same_seeds() -> None:
    seen: dict[str, list[tuple[str, int]]] = {}
    for policy in (Expert(), EmptyPolicy(), RandomPolicy()):
        played: list[Trajectory] = []
        await evaluate(
            collector_of(policy, seed=3), ["sums"], split="held_out", limit=4, samples=2, on_episode=played.append
        )
        seen[type(policy).__name__] = sorted((t.task.id, t.seed) for t in played)
    assert len({str(pairs) for pairs in seen.values()}) == 1
    assert len({seed for _, seed in seen["Expert"]}) == 8


async def test_missing_data_is_left_out_and_counted() -> None:
    """Instances 1 to 3 fail: three episodes are missing, and nothing of them is a zero."""
    scores = await scores_of(collector_of(Expert(), trouble="respond", troubled=4), limit=6)
    assert (scores.episodes, scores.failed) == (6, 3)
    assert list(scores.rewards.values()) == [1.0] * 3


def test_rewards_have_the_environments_range_and_rates_have_their_own() -> None:
    """Where a reward may be -1, ten of 1 leave room for it; ten successes are a share all the same."""
    ones = {f"t{i}": 1.0 for i in range(10)}
    scores = EnvScores(rewards=ones, accuracies=ones, parts={"right": ones}, span=(-1.0, 1.0))
    assert scores.interval().low == pytest.approx(2 * 0.6915 - 1, abs=1e-4)
    assert scores.accuracy().low == scores.part("right").low == pytest.approx(0.6915, abs=1e-4)
    assert scores.part("left").n == 0


async def test_environments_are_scored_apart() -> None:
    collector = collector_of(Expert(), labels=("a", "b"))
    scores = await evaluate(collector, ["a", "b"], split="train", limit=3)
    assert {label: len(s.rewards) for label, s in scores.items()} == {"a": 3, "b": 3}


async def test_a_users_mistake_surfaces() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await scores_of(collector_of(Expert(), trouble="user"))
    assert caught.group_contains(UserError, match="set it right")
