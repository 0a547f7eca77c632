"""Who blocks the event loop is named, and takes no time from the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from envgym.env.bounded import Late, bounded
from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.clock import loop_clock
from envgym.env.tools import run_calls, tool
from envgym.records import Message, Score, Split, Task, ToolCall, Trajectory


class Blocking(ChatEnv):
    """Blocks the loop, with a call or by computing."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id="t", split=split, messages=())]

    async def respond(self, action: Message) -> Reply:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            time.sleep(0.5 if action.content == "sleep" else 0)  # noqa: ASYNC251 - the fault under test
        return Reply(done=True)

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=1.0, accuracy=1.0)

    @tool(timeout=0.3)
    async def doze(self, seconds: float) -> str:
        """Sleep as one should."""
        await asyncio.sleep(seconds)
        return "slept"


async def _block(how: str = "sleep") -> None:
    env = Blocking()
    await env.areset()
    await env.astep(Message(role="assistant", content=how))


@pytest.mark.parametrize("how", ["sleep", "compute"])
async def test_a_limit_does_not_count_the_time_for_which_another_blocks_the_loop(how: str) -> None:
    async def limited() -> str:
        blocking = asyncio.create_task(_block(how))
        await asyncio.sleep(0.2)
        await blocking
        await asyncio.sleep(0.02)
        return "in time"

    started = time.monotonic()
    assert await bounded(limited(), 0.3, "it") == "in time"
    assert time.monotonic() - started > 0.5


async def test_what_is_left_after_a_stall_is_still_a_limit() -> None:
    async def limited() -> None:
        await _block()
        await asyncio.sleep(60)

    started = time.monotonic()
    with pytest.raises(Late):
        await bounded(limited(), 0.3, "it")
    assert 0.7 < time.monotonic() - started < 5


@pytest.mark.parametrize("how", ["sleep", "compute"])
async def test_who_blocked_the_loop_is_named_with_its_line_and_for_how_long(how: str) -> None:
    clock = loop_clock()
    with clock.watching():
        await _block(how)
        await asyncio.sleep(0.06)
    (who,) = clock.culprits
    assert "test_clock.Blocking.respond (" in who
    lines = who.rpartition(":")[2].rstrip(")")
    assert 25 <= int(lines) <= 28
    assert __file__ in who
    assert 0.35 < clock.culprits[who] == clock.stalled_seconds < 2


async def test_a_loop_that_nobody_blocks_has_no_stall_and_a_limit_holds() -> None:
    started = time.monotonic()
    with pytest.raises(Late):
        await bounded(asyncio.sleep(60), 0.3, "it")
    assert time.monotonic() - started - loop_clock().stalled_seconds < 0.6


async def test_a_tool_is_not_timed_out_by_its_neighbour() -> None:
    """It needs 0.1 s of its 0.3 s; another episode holds the loop for 0.5 s of them."""
    env = Blocking()
    running = asyncio.ensure_future(run_calls(env.tools, [ToolCall(name="doze", arguments={"seconds": 0.1})]))
    await asyncio.sleep(0.02)
    await _block()
    (answer,), counts = await running
    assert answer.content == "slept"
    assert counts["tool_errors"] == 0


async def test_time_is_measured_anew_after_a_pause_in_which_nobody_watched() -> None:
    clock = loop_clock()
    with clock.watching():
        await asyncio.sleep(0)
    await _block()
    with clock.watching():
        await asyncio.sleep(0.06)
    assert clock.stalled_seconds < 0.4
