"""Who is let in does not depend on who was faster, and sampling waits until everybody has asked."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from envgym.rollout.turnstile import Turnstile


async def _episode(turnstile: Turnstile, name: str, log: list[str], turns: int = 2, delay: float = 0.0) -> None:
    await turnstile.enter((name,))
    log.append(name)
    try:
        for _ in range(turns):
            await asyncio.sleep(delay)  # the environment at work
            with turnstile.waiting():
                await asyncio.sleep(0.002)
    finally:
        turnstile.leave()


async def test_an_ordered_turnstile_lets_in_by_key_whatever_the_delays() -> None:
    """Twice the same order, although arrivals and work are shuffled; without the order, arrivals decide."""
    orders = []
    for seed in (1, 2):
        rng = random.Random(seed)
        turnstile, log = Turnstile(2), list[str]()
        turnstile.ordered = True
        names = rng.sample("abcdef", 6)
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(_episode(turnstile, name, log, delay=rng.uniform(0, 0.003)))
        orders.append(log)
    assert orders[0] == orders[1] == list("abcdef")
    plain, log = Turnstile(1), []
    async with asyncio.TaskGroup() as tasks:
        for name in "cab":
            tasks.create_task(_episode(plain, name, log, turns=1))
    assert log == list("cab")


async def test_settled_waits_for_those_at_work_and_for_nobody_else() -> None:
    turnstile = Turnstile(4)
    turnstile.ordered = True
    await asyncio.gather(*(turnstile.enter((name,)) for name in "ab"))
    turnstile.pause()
    settled = asyncio.create_task(turnstile.settled())
    await asyncio.sleep(0.01)
    assert not settled.done()  # one is at work
    turnstile.pause()
    assert await settled
    assert await turnstile.settled()


async def test_settled_lets_in_who_follows_on_an_end() -> None:
    """What an ended episode begins, a few passes of the loop later, is waited for as well."""
    turnstile, log = Turnstile(1), list[str]()
    turnstile.ordered = True

    async def chain() -> None:
        await _episode(turnstile, "first", log, turns=0)
        for _ in range(5):
            await asyncio.sleep(0)
        await turnstile.enter(("second",))
        log.append("second")
        await asyncio.sleep(0.01)
        turnstile.pause()

    running = asyncio.create_task(chain())
    await asyncio.sleep(0)
    assert await turnstile.settled()
    assert log == ["first", "second"]
    await running


async def test_patience_has_an_end() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter(("slow",))
    assert not await turnstile.settled(patience=0.01)


@pytest.mark.parametrize("ordered", [False, True])
async def test_who_is_cancelled_while_waiting_or_inside_frees_the_place(ordered: bool) -> None:
    turnstile, log = Turnstile(1), list[str]()
    turnstile.ordered = ordered
    inside = asyncio.create_task(_episode(turnstile, "a", log, delay=60))
    await asyncio.sleep(0.02)
    outside = asyncio.create_task(_episode(turnstile, "b", log))
    await asyncio.sleep(0.02)
    for task in (outside, inside):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.wait_for(_episode(turnstile, "c", log), 5)
    assert log == ["a", "c"]
    assert await turnstile.settled(patience=1)


async def test_a_burst_is_let_in_a_few_in_each_pass_of_the_loop() -> None:
    """A thousand that begin in one pass would keep everything else waiting meanwhile."""
    turnstile = Turnstile(1000)
    inside: list[int] = []

    async def enter(number: int) -> None:
        await turnstile.enter(("key",))
        inside.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(1000):
            tasks.create_task(enter(number))
        steps = [0]
        while len(inside) < 1000:
            await asyncio.sleep(0)
            steps.append(len(inside))
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 16
    assert inside == list(range(1000)), "first come, first served"


async def test_a_closed_turnstile_leaves_no_task_and_lets_nobody_in() -> None:
    """Somebody works and somebody waits; closed, it is not waiting for the quiet any more."""
    turnstile = Turnstile(2)
    turnstile.ordered = True
    with turnstile.working():
        waiting = asyncio.create_task(turnstile.enter(("a",)))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 3
        turnstile.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task(), waiting}
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
