"""Thresholds of the garbage collector are raised while episodes are in flight, and are the user's again after."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator, Sequence

import pytest

from envgym.env.services import Services
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, ToolSpec
from envgym.rollout.collector import Collector
from envgym.rollout.garbage import PatientGarbageCollector
from envgym.rollout.mix import MixEntry


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_few_episodes_leave_them_as_they_are() -> None:
    with PatientGarbageCollector():
        assert gc.get_threshold() == (700, 10, 10)


def test_they_follow_the_episodes_in_flight_and_are_put_back_by_the_last() -> None:
    """Room for twice as many is made at once, so that they are rarely set; the last episode out puts them back."""
    patience, seen = PatientGarbageCollector(), list[int]()
    for _ in range(100):
        patience.__enter__()
        seen.append(gc.get_threshold()[0])
    assert all(threshold >= 150 * count for count, threshold in enumerate(seen, start=1) if count > 4)
    assert sorted(set(seen)) == [700, 900, 2_100, 4_500, 9_300, 18_900]
    for _ in range(99):
        patience.__exit__()
    assert gc.get_threshold() == (18_900, 10, 10)
    patience.__exit__()
    assert gc.get_threshold() == (700, 10, 10)
    with patience:
        assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [(0, 0, 0), (10**6, 10**3, 10**3)])
def test_what_the_user_chose_stays(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with _in_flight(8):
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen
    gc.set_threshold(700, 10, 10)
    with _in_flight(8) as patience:
        gc.set_threshold(*chosen)
        with patience, patience:
            assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


@contextlib.contextmanager
def _in_flight(episodes: int) -> Iterator[PatientGarbageCollector]:
    patience = PatientGarbageCollector()
    with contextlib.ExitStack() as stack:
        for _ in range(episodes):
            stack.enter_context(patience)
        yield patience


class _Looking(Policy):
    """Lets others in before it looks at the thresholds and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return _Session(self)


class _Session(PolicySession):
    def __init__(self, policy: _Looking) -> None:
        self._policy = policy

    async def act(self, observation: Observation) -> Completion:
        await asyncio.sleep(0.05)
        self._policy.seen.append(gc.get_threshold()[0])
        return Completion(message=Message(role="assistant", content=""))


async def test_a_collector_raises_them_for_its_episodes() -> None:
    policy = _Looking()
    collector = Collector([MixEntry(env="toys:Adder", name="sums")], policy, Services())
    task = collector.tasks("sums", "train")[0]
    await asyncio.gather(*(collector.episode("sums", task, sample) for sample in range(20)))
    await collector.close()
    assert policy.seen[0] >= 150 * 20
    assert gc.get_threshold() == (700, 10, 10)
