"""The collector retries with a fresh environment, counts what failed, and stops a run that fails too much."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from toys import Adder

from envgym.env.services import Services
from envgym.errors import PolicyError, UserError
from envgym.policies.interface import Policy
from envgym.policies.scripted import Expert, RandomPolicy
from envgym.records import Task
from envgym.rollout.collector import Collector, TooManyFailures
from envgym.rollout.mix import MixEntry

Make = Callable[..., Collector]


@pytest.fixture
def collector(adder: Any) -> Iterator[Make]:
    """A collector of one ``Adder`` in some trouble; instance 0 is the one that holds the tasks."""

    def make(
        trouble: str = "", *, policy: Policy | None = None, troubled: int = 10**6, **options: Any
    ) -> Collector:
        entry = MixEntry(env="toys:Adder", name="sums", settings={"trouble": trouble, "troubled": troubled})
        return Collector([entry], policy or Expert(), Services(), **options)

    return make


def first(collector: Collector) -> Task:
    return collector.tasks("sums", "train")[0]


async def test_an_instance_is_reused_while_it_works(collector: Make) -> None:
    made = collector()
    for sample in range(3):
        assert (await made.episode("sums", first(made), sample)).reward == 1.0
    assert len(Adder.instances) == 2
    assert made.counts == {"episodes": 3}


async def test_a_failed_episode_is_played_again_on_a_fresh_instance(collector: Make) -> None:
    """Instance 1 fails, is closed, and instance 2 plays the same task."""
    made = collector("respond", troubled=2)
    task = first(made)
    trajectory = await made.episode("sums", task, 0)
    assert trajectory.reward == 1.0
    assert trajectory.task is task
    _, failed, fresh = Adder.instances
    assert (failed.starts, failed.finishes, failed.closes) == (1, 1, 1)
    assert (fresh.starts, fresh.closes) == (1, 0)
    assert made.counts == {"episodes": 2, "failed": 1, "failed/EnvironmentFailure": 1}


async def test_what_fails_every_time_is_returned_as_missing(collector: Make) -> None:
    made = collector("sandbox", retries=2)
    trajectory = await made.episode("sums", first(made), 0)
    assert trajectory.failed
    assert math.isnan(trajectory.reward)
    assert made.counts == {"episodes": 3, "failed": 3, "failed/SandboxError": 3}
    assert [env.closes for env in Adder.instances[1:]] == [1, 1, 1]


async def test_a_group_keeps_what_is_missing_and_marks_it(collector: Make) -> None:
    made = collector("respond", troubled=3, retries=0)
    group = await made.group("sums", first(made), 4)
    assert len(group.trajectories) == 4
    assert sum(math.isnan(r) for r in group.rewards) == 2
    assert [math.isnan(a) for a in group.accuracies] == [math.isnan(r) for r in group.rewards]
    assert sorted(r for r in group.rewards if not math.isnan(r)) == [1.0, 1.0]


async def test_seeds_of_samples_rounds_and_tasks_differ_and_repeat(collector: Make) -> None:
    async def seeds(run_seed: int) -> list[int]:
        made = collector(policy=RandomPolicy(), seed=run_seed)
        one, two = made.tasks("sums", "train")[:2]
        played = [(one, 0, 0), (one, 1, 0), (one, 0, 1), (two, 0, 0)]
        return [(await made.episode("sums", task, s, r)).seed for task, s, r in played]

    drawn = await seeds(1)
    assert len(set(drawn)) == 4
    assert drawn == await seeds(1)
    assert not set(drawn) & set(await seeds(2))


async def test_a_run_that_fails_too_much_stops_with_the_reason(collector: Make) -> None:
    made = collector("sandbox", retries=0, failure_limit=0.5)
    task = first(made)
    for sample in range(15):
        await made.episode("sums", task, sample)
    with pytest.raises(TooManyFailures, match=r"16 of 16 episodes failed.*50%.*sums: SandboxError: gone"):
        await made.episode("sums", task, 15)
    assert all(env.closes for env in Adder.instances[1:])


async def test_failures_within_the_limit_do_not_stop_it(collector: Make) -> None:
    made = collector("sandbox", retries=0, failure_limit=1.0)
    for sample in range(20):
        await made.episode("sums", first(made), sample)
    assert made.counts["failed"] == 20


async def test_a_users_mistake_ends_it_and_closes_the_instance(collector: Make) -> None:
    made = collector("user")
    with pytest.raises(UserError, match="set it right"):
        await made.episode("sums", first(made), 0)
    with pytest.raises(ExceptionGroup) as caught:
        await made.group("sums", first(made), 2)
    assert caught.group_contains(UserError)
    assert all(env.closes for env in Adder.instances[1:])


async def test_no_more_episodes_run_at_once_than_allowed(collector: Make, script: Any, say: Any) -> None:
    running = most = 0

    class Counting(Expert):
        def open(self, *arguments: Any) -> Any:
            session = super().open(*arguments)
            act = session.act

            async def counted(observation: Any) -> Any:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.005)
                running -= 1
                return await act(observation)

            session.act = counted  # type: ignore[method-assign]
            return session

    made = collector(policy=Counting(), concurrency=3)
    await made.group("sums", first(made), 10)
    assert most == 3
    assert len(Adder.instances) == 4


async def test_cancellation_closes_the_instances_in_use(collector: Make, script: Any) -> None:
    made = collector(policy=script(3600.0, 3600.0))
    playing = asyncio.ensure_future(made.group("sums", first(made), 2))
    await asyncio.sleep(0.1)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert [(env.finishes, env.closes) for env in Adder.instances[1:]] == [(1, 1), (1, 1)]


async def test_an_instance_that_cannot_be_closed_is_counted_and_replaced(
    collector: Make, script: Any, say: Any
) -> None:
    made = collector("close", policy=script(PolicyError("down"), say("1")))
    trajectory = await made.episode("sums", first(made), 0)
    assert not trajectory.failed
    assert made.counts["not_closed"] == 1
    assert len(Adder.instances) == 3


async def test_closing_closes_every_instance_even_if_one_fails(collector: Make, script: Any, say: Any) -> None:
    pauses = [0.05, 0.05, 0.05]
    made = collector("close", troubled=2, policy=script(*pauses, say("1"), say("1"), say("1")))
    await made.group("sums", first(made), 3)
    assert len(Adder.instances) == 4
    await made.close()
    assert made.counts["not_closed"] == 2
    assert [env.closes for env in Adder.instances] == [1, 1, 1, 1]


async def test_instances_share_their_tasks(collector: Make) -> None:
    made = collector()
    await made.episode("sums", first(made), 0)
    assert Adder.instances[1].task_list("train") is Adder.instances[0].task_list("train")
