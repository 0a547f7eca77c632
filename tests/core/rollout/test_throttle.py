"""Few go on in each pass of the event loop, in order, and nobody is forgotten."""

from __future__ import annotations

import asyncio

from envgym.rollout.throttle import Throttle


async def passes_of(throttle: Throttle, count: int) -> list[int]:
    """Let ``count`` coroutines ask at once; return the pass of the event loop in which each went on."""
    passed = [0]
    running = True

    async def tick() -> None:
        while running:
            passed[0] += 1
            await asyncio.sleep(0)

    async def ask() -> int:
        await throttle.turn()
        return passed[0]

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(*(ask() for _ in range(count)))
    running = False
    await ticking
    return found


async def test_no_pass_lets_more_go_on_than_it_may() -> None:
    found = await asyncio.wait_for(passes_of(Throttle(4), 20), 5)
    assert found == sorted(found), "in order of arrival"
    assert max(found.count(n) for n in found) == 4
    assert len(set(found)) == 5


async def test_few_do_not_wait() -> None:
    throttle = Throttle(4)
    for _ in range(3):
        for _ in range(4):
            turn = asyncio.ensure_future(throttle.turn())
            await asyncio.sleep(0)
            assert turn.done()


async def test_those_who_give_up_take_no_turn() -> None:
    throttle = Throttle(2)
    asking = [asyncio.ensure_future(throttle.turn()) for _ in range(7)]
    await asyncio.sleep(0)
    for task in asking[2:6]:
        task.cancel()
    await asyncio.wait_for(asking[6], 5)
    assert [task.cancelled() for task in asking] == [False, False, True, True, True, True, False]
    assert await asyncio.wait_for(passes_of(throttle, 4), 5)
