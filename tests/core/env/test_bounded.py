"""A limit on an author's code holds whatever the code does, and code that cleans up has the time for it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from envgym.env.bounded import Late, bounded
from envgym.env.clock import loop_clock

Code = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym.env.bounded._GRACE_SECONDS", 0.2)


async def stubborn() -> None:
    """Try again for ever, whatever happens; slowly, for an abandoned one goes on until the loop ends."""
    while True:
        try:  # noqa: SIM105
            await asyncio.sleep(0.05)
        except BaseException:  # noqa: BLE001 - the fault under test
            pass


async def stubborn_children() -> None:
    await asyncio.gather(stubborn(), stubborn())


async def stubborn_behind_a_shield() -> None:
    inner = asyncio.ensure_future(stubborn())
    while not inner.done():
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            continue


async def waits_again_in_its_cleanup() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "code", [stubborn, stubborn_children, stubborn_behind_a_shield, waits_again_in_its_cleanup]
)
async def test_code_that_does_not_give_in_is_abandoned_counted_and_named(
    code: Code, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    with pytest.raises(Late, match=rf"test_bounded\.{code.__name__} .*went on when it was cancelled: abandoned"):
        await bounded(code(), 0.1, "it")
    assert time.monotonic() - started < 10
    ((who, times),) = loop_clock().abandoned.items()
    assert code.__name__ in who
    assert times == 1
    assert who in caplog.text
    assert len(asyncio.all_tasks()) == 1


async def test_code_that_gives_in_is_late_and_not_abandoned() -> None:
    with pytest.raises(Late) as caught:
        await bounded(asyncio.Event().wait(), 0.05, "waiting for rain")
    assert str(caught.value) == "in waiting for rain"
    assert not loop_clock().abandoned


async def test_cleaning_up_within_the_grace_is_waited_for() -> None:
    cleaned: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("up")

    with pytest.raises(Late):
        await bounded(tidy(), 0.05, "it")
    assert cleaned == ["up"]


async def test_a_caller_that_is_cancelled_twice_still_waits_for_the_cleaning_up() -> None:
    cleaned: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append("up")

    waiting = asyncio.create_task(bounded(tidy(), 60, "it"))
    await asyncio.sleep(0.02)
    for _ in range(2):
        waiting.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cleaned == ["up"]


async def test_a_caller_that_is_cancelled_does_not_wait_for_stubborn_code() -> None:
    waiting = asyncio.create_task(bounded(stubborn(), 60, "it"))
    await asyncio.sleep(0.02)
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=10)
    assert done == {waiting}
    assert waiting.cancelled()
    assert sum(loop_clock().abandoned.values()) == 1


async def test_the_innermost_limit_is_named() -> None:
    async def outer() -> None:
        await bounded(stubborn(), 60, "inner")

    with pytest.raises(Late, match=r"test_bounded\.stubborn "):
        await bounded(outer(), 0.05, "outer")


async def test_results_errors_and_the_callers_context_come_through() -> None:
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour")
    colour.set("red")

    async def read() -> str:
        return colour.get()

    async def fail() -> None:
        raise KeyError("x")

    assert await bounded(read(), 5, "it") == "red"
    with pytest.raises(KeyError):
        await bounded(fail(), 5, "it")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
async def test_exits_of_the_code_reach_the_caller_as_errors_and_the_loop_goes_on(error: BaseException) -> None:
    async def leave() -> None:
        raise error

    with pytest.raises(type(error)):
        await bounded(leave(), 5, "it")
    await asyncio.sleep(0)


PROGRAM = """
import asyncio, time
import envgym.env.bounded as b
b._GRACE_SECONDS = 0.1
async def stubborn():
    while True:
        try: await asyncio.sleep(0.05)
        except: pass
async def children(): await asyncio.gather(stubborn(), stubborn())
async def spins():
    while True:
        try: await asyncio.sleep(0)
        except: pass
async def thread():
    import envgym.env.threads as t
    t._GRACE_SECONDS = 0.1
    await asyncio.to_thread(time.sleep, 1000)
async def main():
    for code in (stubborn, children, spins, thread):
        try: await b.bounded(code(), 0.1, "it")
        except b.Late: print(code.__name__)
asyncio.run(main())
print("over")
"""


def test_the_process_ends_although_abandoned_code_goes_on() -> None:
    """The end of ``asyncio.run`` cancels and awaits every task; the end of Python frees every coroutine."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.split() == ["stubborn", "children", "spins", "thread", "over"]
    assert "Traceback" not in done.stderr
    assert "never" not in done.stderr


async def test_a_stuck_call_in_a_thread_takes_nobody_elses_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym.env.threads._LONG_SECONDS", 0.05)
    monkeypatch.setattr("envgym.env.threads._GRACE_SECONDS", 0.1)
    stop = threading.Event()

    async def stuck() -> None:
        await asyncio.to_thread(stop.wait)

    async def quick() -> int:
        return await asyncio.to_thread(len, "four")

    try:
        for _ in range(40):
            with pytest.raises(Late):
                await bounded(stuck(), 0.01, "stuck")
        await asyncio.sleep(0.1)
        assert await bounded(quick(), 10, "quick") == 4
    finally:
        stop.set()


@pytest.mark.parametrize("seconds", [0.0, 0.001], ids=["at once", "after a wait"])
async def test_what_is_over_is_freed_without_a_search_for_cycles(seconds: float) -> None:
    """A call inside another, that waits or does not: nothing of either is left for the garbage collector."""

    async def inner() -> None:
        if seconds:
            await asyncio.sleep(seconds)

    async def outer() -> None:
        await bounded(inner(), 5.0, "inner")

    await bounded(outer(), 5.0, "outer")
    await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            await bounded(outer(), 5.0, "outer")
        await asyncio.sleep(0)
        assert gc.collect() == 0
    finally:
        gc.enable()
