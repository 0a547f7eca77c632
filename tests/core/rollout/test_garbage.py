"""Thresholds of the garbage collector are raised while episodes are in flight, and are the user's again after."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import pytest

from envgym.env.services import Services
from envgym.policies.interface import PolicySession
from envgym.policies.scripted import EmptyPolicy
from envgym.records import ToolSpec
from envgym.rollout.collector import Collector
from envgym.rollout.garbage import SmallPortions
from envgym.rollout.mix import MixEntry


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_they_are_raised_once_for_all_and_put_back_by_the_last() -> None:
    portions = SmallPortions()
    with portions:
        raised = gc.get_threshold()
        with portions:
            assert gc.get_threshold() == raised
        assert gc.get_threshold() == raised
    assert raised == (1_000, 10, 500)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [(0, 0, 0), (10**6, 10**3, 10**3)])
def test_what_the_user_chose_stays(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with SmallPortions():
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen
    gc.set_threshold(700, 10, 10)
    with SmallPortions():
        gc.set_threshold(*chosen)
    assert gc.get_threshold() == chosen


class _Looking(EmptyPolicy):
    seen: tuple[int, ...] = ()

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        type(self).seen = gc.get_threshold()
        return super().open(tools, seed)


async def test_a_collector_raises_them_for_its_episodes() -> None:
    collector = Collector([MixEntry(env="toys:Adder", name="sums")], _Looking(), Services())
    await collector.episode("sums", collector.tasks("sums", "train")[0], 0)
    await collector.close()
    assert _Looking.seen == (1_000, 10, 500)
    assert gc.get_threshold() == (700, 10, 10)
