"""Synchronous callers drive asynchronous code, and cannot deadlock with themselves."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading

import pytest

from envgym.env.run_sync import run_sync


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def test_the_result_or_the_error_comes_back() -> None:
    async def fail() -> None:
        raise KeyError("x")

    assert run_sync(double(2)) == 4
    with pytest.raises(KeyError):
        run_sync(fail())


async def test_it_works_inside_another_loop() -> None:
    assert run_sync(double(2)) == 4


def test_many_threads_share_it() -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda i=i: results.append(run_sync(double(i)))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_asynchronous_code_that_calls_back_is_told_and_does_not_hang() -> None:
    async def call_back() -> int:
        return run_sync(double(2))

    with pytest.raises(RuntimeError, match="must await areset"):
        run_sync(call_back())


def _child(answers: multiprocessing.SimpleQueue[int]) -> None:
    answers.put(run_sync(double(21)))


def test_a_forked_child_does_not_hang() -> None:
    """As in ``gymnasium.vector.AsyncVectorEnv``: threads do not survive a fork."""
    run_sync(double(1))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_child, args=(answers,))
    child.start()
    child.join(20)
    try:
        assert child.exitcode == 0
        assert answers.get() == 42
    finally:
        child.kill()
