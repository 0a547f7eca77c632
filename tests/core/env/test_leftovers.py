"""What a hook leaves running goes on while the loop runs, and the loop ends all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from envgym.env.bounded import bounded
from envgym.env.leftovers import keep_leftovers

PROGRAM = """
import asyncio
import envgym.env.leftovers as l
from envgym.env.bounded import bounded
l._GRACE_SECONDS = 0.2
async def stubborn():
    while True:
        try: await asyncio.sleep(0.05)
        except: pass
async def tidy():
    try: await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        print("tidied")
async def hook():
    global beats
    beats = [asyncio.create_task(code()) for code in (stubborn, tidy)]
    await asyncio.sleep(0.01)
async def main():
    await bounded(hook(), 5, "it")
    l.keep_leftovers()
    await asyncio.sleep(0.05)
    print([beat.done() for beat in beats])
asyncio.run(main())
print("over")
"""


def test_the_loop_ends_although_a_left_task_swallows_its_cancellation_and_others_clean_up() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[False, False]", "tidied", "over"]
    assert "not waited for: a task goes on after it was cancelled: __main__.stubborn" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_task_that_ends_by_itself_leaves_nothing() -> None:
    left: list[asyncio.Task[None]] = []

    async def hook() -> None:
        left.append(asyncio.create_task(asyncio.sleep(0.05)))

    await bounded(hook(), 5, "it")
    keep_leftovers()
    await left[0]
    await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == 1


async def test_code_under_way_is_not_taken_over() -> None:
    async def hook() -> None:
        child = asyncio.create_task(asyncio.sleep(0.01))
        keep_leftovers()
        assert child in asyncio.all_tasks()
        await child

    await bounded(hook(), 5, "it")
