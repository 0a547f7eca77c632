"""Limits ring in order and never early, one timer serves them all, and what is called off leaves nothing."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.env.alarms import Alarms


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.1), st.booleans()), min_size=1, max_size=30))
def test_every_alarm_rings_soon_after_its_time_unless_it_is_called_off(plan: list[tuple[float, bool]]) -> None:
    async def ring() -> None:
        alarms, loop = Alarms(time.monotonic), asyncio.get_running_loop()
        begun = time.monotonic()
        waiting = [(begun + delay, loop.create_future()) for delay, _ in plan]
        ticks = [alarms.set(end, future) for end, future in waiting]
        rung: dict[int, float] = {}
        for i, (_, future) in enumerate(waiting):
            future.add_done_callback(lambda _, i=i: rung.setdefault(i, time.monotonic()))
            if plan[i][1]:
                alarms.call_off(ticks[i], future)
        await asyncio.sleep(0.2)
        assert rung.keys() == {i for i, (_, off) in enumerate(plan) if not off}
        assert all(rung[i] >= waiting[i][0] for i in rung)
        assert not alarms._waiting

    asyncio.run(ring())


async def test_an_alarm_on_a_clock_that_stands_still_waits_for_it() -> None:
    now = 0.0
    alarms = Alarms(lambda: now)
    waiting = asyncio.get_running_loop().create_future()
    alarms.set(0.02, waiting)
    await asyncio.sleep(0.06)
    assert not waiting.done()
    now = 0.02
    await asyncio.wait_for(waiting, 5)


async def test_thousands_of_alarms_take_one_timer() -> None:
    alarms, loop = Alarms(time.monotonic), asyncio.get_running_loop()
    before = len(getattr(loop, "_scheduled"))  # noqa: B009 - asyncio's own
    for i in range(1000):
        alarms.set(time.monotonic() + 100 + i / 100, loop.create_future())
    assert len(getattr(loop, "_scheduled")) <= before + 2  # noqa: B009
