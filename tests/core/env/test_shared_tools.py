"""A tool's limit holds over a run, in order; kept results are those of equal calls, never of what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.env.chat_env import ChatEnv
from envgym.env.services import Services
from envgym.env.shared_tools import ResultCache, ToolSettings
from envgym.env.tools import ToolInputError, run_calls, tool
from envgym.errors import ToolError
from envgym.records import Score, Split, Task, ToolCall, Trajectory


class Shop(ChatEnv):
    """Has a tool that only two may use at once, and one whose results may be kept."""

    class Config(ChatEnv.Config):
        tax: int = 0

    config: Config
    inside: ClassVar[int] = 0
    most: ClassVar[int] = 0
    order: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id="t", split=split, messages=())]

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=1.0, accuracy=1.0)

    @tool(limit=2, timeout=1.0)
    async def till(self, name: str, seconds: float = 0.01) -> str:
        """Pay."""
        kind = type(self)
        kind.inside += 1
        kind.most = max(kind.most, kind.inside)
        kind.order.append(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            kind.inside -= 1
        return f"{name} paid"

    @tool(cache=True, timeout=0.5)
    async def price(self, good: str, seconds: float = 0.01) -> int:
        """Look up."""
        self.asked.append(good)
        await asyncio.sleep(seconds)
        if good == "air":
            raise ToolInputError("not sold")
        if good == "fire":
            raise OSError("burnt")
        return len(good) + self.config.tax


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Shop.inside = Shop.most = 0
    Shop.order, Shop.asked = [], []


async def ask(env: ChatEnv, tool_name: str, /, **arguments: Any) -> str:
    (message,), _ = await run_calls(env.tools, [ToolCall(name=tool_name, arguments=arguments)])
    return message.content


async def test_no_more_than_the_limit_run_at_once_in_order_of_arrival_and_waiting_is_not_timed() -> None:
    """Ten calls of 0.3 s, two at a time, of a tool that has 1 s: the last one waits for 1.2 s."""
    services = Services()
    shops = [Shop(services=services) for _ in range(10)]
    answers = await asyncio.gather(*(ask(s, "till", name=f"{i}", seconds=0.3) for i, s in enumerate(shops)))
    assert answers == [f"{i} paid" for i in range(10)]
    assert Shop.most == 2
    assert Shop.order == [f"{i}" for i in range(10)]
    assert services.tools.counts["till/waited"] == 8


async def test_a_recipes_limit_takes_the_authors_place_and_other_runs_have_their_own() -> None:
    for limit in (1, 5):
        services = Services(tools=ToolSettings(limits={"till": limit}))
        await asyncio.gather(*(ask(Shop(services=services), "till", name="n") for _ in range(10)))
        assert Shop.most == limit
    await asyncio.gather(*(ask(Shop(services=Services()), "till", name="n") for _ in range(10)))
    assert Shop.most == 10


async def test_who_is_cancelled_waiting_or_inside_or_times_out_gives_the_permit_back() -> None:
    services = Services(tools=ToolSettings(limits={"till": 1}))
    shop = Shop(services=services)
    inside = asyncio.create_task(ask(shop, "till", name="a", seconds=60))
    await asyncio.sleep(0.02)
    outside = asyncio.create_task(ask(shop, "till", name="b"))
    await asyncio.sleep(0.02)
    for task in (outside, inside):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "timed out after 1 s" in await ask(shop, "till", name="c", seconds=60)
    assert await ask(shop, "till", name="d") == "d paid"
    assert Shop.order == ["a", "c", "d"]


async def test_equal_calls_of_a_run_run_once_whoever_asks_and_settings_tell_them_apart() -> None:
    services = Services()
    same = [Shop(services=services) for _ in range(5)]
    answers = await asyncio.gather(*(ask(shop, "price", good="tea") for shop in same))
    answers.append(await ask(same[0], "price", good="tea"))
    assert answers == ["3"] * 6
    assert Shop.asked == ["tea"]
    assert services.tools.counts == {"price/run": 1, "price/cached": 5}
    assert await ask(Shop(services=services, tax=2), "price", good="tea") == "5"
    assert await ask(same[0], "price", good="milk") == "4"
    assert Shop.asked == ["tea", "tea", "milk"]


@pytest.mark.parametrize(("good", "seconds"), [("air", 0.01), ("tea", 60.0)])
async def test_errors_and_timeouts_are_not_kept_and_who_waited_for_one_asks_for_itself(
    good: str, seconds: float
) -> None:
    services = Services()
    shops = [Shop(services=services) for _ in range(3)]
    answers = await asyncio.gather(*(ask(shop, "price", good=good, seconds=seconds) for shop in shops))
    assert all(answer.startswith("error: ") for answer in answers)
    assert len(Shop.asked) == 3
    await ask(shops[0], "price", good=good, seconds=seconds)
    assert len(Shop.asked) == 4
    assert not len(services.tools.results)


async def test_a_broken_call_is_a_tool_error_for_each() -> None:
    services = Services()
    shops = [Shop(services=services) for _ in range(2)]
    found = await asyncio.gather(*(ask(s, "price", good="fire") for s in shops), return_exceptions=True)
    assert [type(error) for error in found] == [ToolError, ToolError]


async def test_the_first_who_asked_may_be_cancelled_and_so_may_those_who_wait() -> None:
    services = Services()
    asking = [
        asyncio.create_task(ask(Shop(services=services), "price", good="tea", seconds=0.1)) for _ in range(3)
    ]
    await asyncio.sleep(0.02)
    asking[1].cancel()
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asking[2] == "3"
    assert len(services.tools.results) == 1


async def test_without_entries_nothing_is_kept() -> None:
    services = Services(tools=ToolSettings(cache_entries=0))
    shop = Shop(services=services)
    for _ in range(2):
        await ask(shop, "price", good="tea")
    assert Shop.asked == ["tea", "tea"]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit must be at least 1"):
        tool(limit=0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300))), st.integers(1, 5), st.integers(0, 1500))
def test_the_cache_stays_within_its_bounds_and_says_what_was_kept(
    asked: list[tuple[int, int]], entries: int, size: int
) -> None:
    cache, made = ResultCache(entries, size), dict[int, str]()

    async def use() -> None:
        for key, length in asked:
            found = await cache.found(key)
            assert found is None or found == made[key]
            if found is None:
                made[key] = "x" * length

                async def run(text: str = made[key]) -> str:
                    return text

                assert await cache.of(key, run) == made[key]
            assert len(cache) <= entries
            assert 0 <= cache.bytes <= size

    asyncio.run(use())
