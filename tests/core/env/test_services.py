"""Services open what environments ask for, say early what does not exist, and close what they opened."""

from __future__ import annotations

import asyncio
import threading

import pytest
from toys import FullDisk

from envgym.env.episode_services import EpisodeServices
from envgym.env.services import Services
from envgym.errors import SandboxError, UnknownNameError, UserError
from envgym.sandbox.interface import Limits


class Slow(FullDisk):
    """Knows whether it works once the event loop has said so."""

    asked = 0
    answer = threading.Event()

    @classmethod
    def unavailable(cls) -> str | None:
        cls.asked += 1
        return None if cls.answer.wait(10) else "the event loop waits for this call"


async def test_choosing_a_backend_keeps_no_episode_waiting() -> None:
    """And several episodes that need it at once choose it once."""
    async with Services(f"{__name__}:Slow") as services:
        opening = [asyncio.create_task(services.open_sandbox(Limits())) for _ in range(4)]
        await asyncio.sleep(0.05)
        Slow.answer.set()
        for error in await asyncio.gather(*opening, return_exceptions=True):
            assert isinstance(error, SandboxError)
            assert "disk full" in str(error)
    assert Slow.asked == 1


def test_an_unknown_sandbox_is_refused_before_it_is_needed() -> None:
    with pytest.raises(UnknownNameError, match="unknown sandbox 'dcoker'; did you mean 'docker'"):
        Services("dcoker")
    for name in ("auto", "docker", "toys:FullDisk"):
        Services(name)


def test_what_is_no_backend_is_refused() -> None:
    with pytest.raises(UserError, match="toys:Adder .* is not a sandbox"):
        Services("toys:Adder").backend()


async def test_an_operating_system_error_is_a_sandbox_error_and_the_backend_is_closed_once() -> None:
    async with Services("toys:FullDisk") as services:
        backend = services.backend()
        assert isinstance(backend, FullDisk)
        with pytest.raises(SandboxError, match="the sandbox backend failed: disk full"):
            await services.open_sandbox(Limits())
        assert services.backend() is backend
    await services.close()
    assert backend.closes == 1


class Line:
    """A connection."""

    closes = 0

    async def close(self) -> None:
        self.closes += 1


async def test_what_is_kept_is_made_once_for_each_key_and_closed_with_the_run() -> None:
    async with Services() as services:
        first, second = services.keep("a", Line), services.keep("b", Line)
        assert first is not second
        assert EpisodeServices(services).keep("a", Line) is first
        assert first.closes == 0
    assert (first.closes, second.closes) == (1, 1)
    await services.close()
    assert first.closes == 1
