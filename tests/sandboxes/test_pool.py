"""The pool is bounded, loses nothing to cancellation, and serves one loop after another (R10, A32)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from envgym.errors import SandboxError
from envgym.sandbox.interface import Limits
from envgym_sandboxes.channel import Channel
from envgym_sandboxes.pool import SandboxPool
from envgym_sandboxes.worker import End, Worker

SMALL, LARGE = Limits(memory_bytes=2**20), Limits(memory_bytes=2**21)


class FakeWorker(Worker):
    def __init__(self, factory: Factory) -> None:
        ours, self.theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.factory = factory

    def end(self, since: float) -> End:
        return End(False, "")

    def kill(self) -> None:
        self.channel.close()
        self.theirs.close()
        with self.factory.lock:
            self.factory.alive -= 1


class Factory:
    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.alive = self.peak = self.made = 0
        self.failure: Exception | None = None

    def __call__(self, limits: Limits) -> Worker:
        time.sleep(self.seconds)
        if self.failure:
            raise self.failure
        with self.lock:
            self.made += 1
            self.alive += 1
            self.peak = max(self.peak, self.alive)
        return FakeWorker(self)


async def test_never_more_than_capacity_and_everyone_is_served() -> None:
    factory = Factory(0.01)
    pool = SandboxPool(factory, 3)

    async def use() -> None:
        worker = await pool.acquire(SMALL)
        await asyncio.sleep(0.005)
        pool.release(worker)

    await asyncio.gather(*(use() for _ in range(20)))
    assert factory.peak <= 3
    assert factory.made <= 3
    await pool.close()
    assert factory.alive == 0


async def test_an_idle_worker_of_another_shape_makes_room() -> None:
    factory = Factory()
    pool = SandboxPool(factory, 1)
    pool.release(await pool.acquire(SMALL))
    worker = await asyncio.wait_for(pool.acquire(LARGE), 5)
    pool.discard(worker)
    await pool.close()
    assert (factory.made, factory.alive) == (2, 0)


async def test_dead_idle_worker_is_replaced() -> None:
    factory = Factory()
    pool = SandboxPool(factory, 2)
    worker = await pool.acquire(SMALL)
    pool.release(worker)
    assert isinstance(worker, FakeWorker)
    worker.theirs.close()
    assert await pool.acquire(SMALL) is not worker
    await pool.close()
    assert factory.alive == 0


async def test_cancelled_waiting_loses_no_worker() -> None:
    factory = Factory(0.05)
    pool = SandboxPool(factory, 2)
    for delay in (0.0, 0.02, 0.049, 0.05, 0.051, 0.06):
        tasks = [asyncio.create_task(pool.acquire(SMALL)) for _ in range(3)]
        await asyncio.sleep(delay)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Worker):
                pool.release(outcome)
    workers = await asyncio.wait_for(asyncio.gather(pool.acquire(SMALL), pool.acquire(SMALL)), 5)
    assert len(set(workers)) == 2
    await pool.close()
    assert factory.alive == 0


@pytest.mark.parametrize("failure", [SandboxError("no"), RuntimeError("odd")])
async def test_failure_to_start_reaches_the_one_who_waits(failure: Exception) -> None:
    factory = Factory()
    factory.failure = failure
    pool = SandboxPool(factory, 1)
    with pytest.raises(SandboxError):
        await pool.acquire(SMALL)
    factory.failure = None
    pool.release(await asyncio.wait_for(pool.acquire(SMALL), 5))
    await pool.close()


async def test_close_ends_waiting_and_refuses_more() -> None:
    factory = Factory()
    pool = SandboxPool(factory, 1)
    await pool.acquire(SMALL)
    waiting = asyncio.create_task(pool.acquire(SMALL))
    await asyncio.sleep(0)
    await pool.close()
    await pool.close()
    with pytest.raises(SandboxError, match="closed"):
        await waiting
    with pytest.raises(SandboxError, match="closed"):
        await pool.acquire(SMALL)
    assert factory.alive == 0


def test_one_pool_serves_one_loop_after_another() -> None:
    factory = Factory()
    pool = SandboxPool(factory, 1)

    async def use() -> None:
        workers = [asyncio.create_task(pool.acquire(SMALL)) for _ in range(2)]
        await asyncio.sleep(0.02)
        pool.release(await workers[0])
        pool.release(await workers[1])

    for _ in range(3):
        asyncio.run(use())
    asyncio.run(pool.close())
    assert (factory.made, factory.alive) == (1, 0)
