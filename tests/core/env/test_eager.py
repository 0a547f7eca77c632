"""A task that begins at once is the task that asyncio would have made, and the caller's goes on as before."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from envgym.env.eager import start

_colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def test_what_never_waits_is_over_at_once_in_its_own_task_and_context() -> None:
    seen: list[Any] = []

    async def code() -> int:
        seen.append((asyncio.current_task(), _colour.get()))
        _colour.set("blue")
        return 7

    context = contextvars.copy_context()
    context.run(_colour.set, "red")
    mine = asyncio.current_task()
    task = start(code(), context)
    assert task.done()
    assert task.result() == 7
    assert seen == [(task, "red")]
    assert (context[_colour], _colour.get()) == ("blue", "none")
    assert asyncio.current_task() is mine


async def test_what_waits_goes_on_in_the_loop_and_can_be_cancelled() -> None:
    log: list[str] = []

    async def code() -> None:
        log.append("begun")
        try:
            async with asyncio.timeout(60):
                await asyncio.sleep(60)
        finally:
            log.append("over")

    task = start(code(), contextvars.copy_context())
    assert log == ["begun"]
    assert task in asyncio.all_tasks()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["begun", "over"]


async def test_a_limit_inside_ends_the_code_and_not_its_caller() -> None:
    """``asyncio.timeout`` cancels the task that enters it: it must be the code's own from the first step on."""

    async def code() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "late"
        return "never"

    assert await start(code(), contextvars.copy_context()) == "late"


async def test_errors_stay_in_the_task() -> None:
    async def code() -> None:
        raise KeyError("x")

    task = start(code(), contextvars.copy_context())
    with pytest.raises(KeyError):
        await task


async def test_it_may_begin_others_inside() -> None:
    async def inner() -> asyncio.Task[Any] | None:
        return asyncio.current_task()

    async def outer() -> bool:
        mine = asyncio.current_task()
        task = start(inner(), contextvars.copy_context())
        return task.result() is task and asyncio.current_task() is mine

    assert start(outer(), contextvars.copy_context()).result()
