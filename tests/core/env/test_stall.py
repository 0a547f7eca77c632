"""Code that blocks the event loop is named while it does, and interrupted; at last the process ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from envgym.env.bounded import bounded
from envgym.env.clock import loop_clock
from envgym.errors import EventLoopBlocked

FOREVER = 60.0


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym.env.stall._WARN_SECONDS", 0.2)
    monkeypatch.setattr("envgym.env.stall._LEAST_SECONDS", 0.5)
    monkeypatch.setattr("envgym.env.stall._AGAIN_SECONDS", 0.1)


def spins() -> None:
    end = time.monotonic() + FOREVER
    while time.monotonic() < end:
        pass


def naps() -> None:
    end = time.monotonic() + FOREVER
    while time.monotonic() < end:
        time.sleep(0.1)


def counts() -> None:
    assert sum(1 for _ in iter(time.monotonic, 0.0)) < 0


def shrugs_twice() -> None:
    for _ in range(3):
        try:
            spins()
        except Exception:  # noqa: BLE001 - the fault under test
            continue
    raise AssertionError("interrupted more often than that")


@pytest.mark.parametrize("block", [spins, naps, counts])
async def test_code_past_its_limit_is_interrupted_and_named(
    block: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def hook() -> None:
        block()

    started = time.monotonic()
    with pytest.raises(EventLoopBlocked, match=r"test_stall\.test_code_past_.*hook") as caught:
        await bounded(hook(), 0.1, "it")
    assert time.monotonic() - started < FOREVER / 2
    assert "await instead, or use a thread" in str(caught.value)
    warned, interrupted = (r.getMessage() for r in caplog.records if r.name == "envgym.env.stall")
    assert "has been blocked for" in warned
    assert "hook" in warned
    assert "interrupted after" in interrupted


async def test_it_is_named_while_it_blocks(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bool] = []

    async def hook() -> None:
        end = time.monotonic() + FOREVER
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.02)  # noqa: ASYNC251 - the fault under test
        seen.append(bool(caplog.records))

    await bounded(hook(), 3 * FOREVER, "it")
    assert seen == [True]


async def test_code_that_swallows_the_interruption_is_interrupted_again() -> None:
    async def hook() -> None:
        shrugs_twice()

    with pytest.raises(AssertionError, match="interrupted more often"):
        await bounded(hook(), 0.1, "it")


async def test_a_tasks_child_is_interrupted_too() -> None:
    async def child() -> None:
        spins()

    async def hook() -> None:
        await asyncio.gather(child())

    with pytest.raises(EventLoopBlocked):
        await bounded(hook(), 0.1, "it")


async def test_what_is_nobodys_code_is_named_and_not_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    """Only code that ``bounded`` awaits is: whoever plays episodes may compute between them."""
    with loop_clock().watching():
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251 - as a trainer might
    said = [r.getMessage() for r in caplog.records if r.name == "envgym.env.stall"]
    assert len(said) == 1
    assert "has been blocked for" in said[0]


async def test_a_block_within_the_limit_of_the_code_is_no_fault() -> None:
    async def hook() -> str:
        time.sleep(0.8)  # noqa: ASYNC251 - longer than the least limit
        return "done"

    assert await bounded(hook(), 30, "it") == "done"


PROGRAM = """
import asyncio, time
import envgym.env.stall as s
from envgym.env.bounded import bounded
s._WARN_SECONDS, s._LEAST_SECONDS, s._EXIT_SECONDS = 0.2, 0.3, 0.5
async def hook():
    {}
asyncio.run(bounded(hook(), 0.1, "it"))
"""
SWALLOW = """
    while True:
        try:
            while True: pass
        except: pass
"""


@pytest.mark.parametrize("block", ["time.sleep(1000)", SWALLOW])
def test_what_cannot_be_interrupted_ends_the_process_with_its_name(block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(block)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    # Whether the interruption hits the loop around the handler, and so ends it, is chance.
    ends = (
        "error: the event loop has been blocked for",
        "envgym.env.stall.EventLoopBlocked: the event loop was blocked",
    )
    assert last.startswith(ends[: 1 if block != SWALLOW else 2])
    assert "__main__.hook (<string>:" in last
