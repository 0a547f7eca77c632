"""A Docker daemon that accepts connections and says nothing: told in seconds, and nothing stays behind (A27)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from envgym.errors import SandboxError
from envgym.sandbox.interface import Limits
from envgym_sandboxes.docker import DockerBackend

SOON = 20.0
"""Seconds within which a failure must be told, on a machine that is busy."""


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon that accepts every connection and never answers."""
    kept = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                kept.append(listener.accept()[0])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'docker.sock'}")
        thread = threading.Thread(target=accept)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


@pytest.fixture
def prompt() -> Iterator[None]:
    """The test itself takes no longer than ``SOON``."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < SOON


@pytest.mark.usefixtures("silent", "prompt")
def test_a_silent_daemon_is_unavailable() -> None:
    reason = DockerBackend.unavailable()
    assert reason is not None
    assert reason.startswith("no Docker daemon answers")


@pytest.mark.usefixtures("silent", "prompt")
def test_nothing_can_be_cleaned_up_at_a_silent_daemon() -> None:
    with pytest.raises(SandboxError, match="does not answer"):
        DockerBackend.clean()


@pytest.mark.usefixtures("silent", "prompt")
async def test_all_who_wait_for_a_silent_daemon_are_told_at_once() -> None:
    """Their failures do not queue up behind one another."""
    backend = DockerBackend(capacity=16)
    asked = [backend.prepare(), *(backend.open(Limits()) for _ in range(16))]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    await backend.close()
    assert [type(outcome) for outcome in outcomes] == [SandboxError] * 17
    assert all("does not answer" in str(outcome) for outcome in outcomes)


@pytest.fixture
async def behind(gate: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DockerBackend]:
    """A backend that calls the daemon through the gate, and has its image; it is less patient, to save time."""
    monkeypatch.setattr(sys.modules["envgym_sandboxes.docker.daemon"], "_ANSWER_SECONDS", 2.0)
    backend = DockerBackend()
    await backend.prepare()
    yield backend
    gate.opened.set()
    await backend.close()


@pytest.fixture
def client() -> Iterator[Any]:
    """Reaches the daemon past the gate."""
    import docker

    made = docker.DockerClient(base_url="unix:///var/run/docker.sock")
    yield made
    made.close()


def left(client: Any, backend: DockerBackend) -> list[Any]:
    marks = [f"{name}={value}" for name, value in backend._labels.items()]
    return list(client.containers.list(all=True, filters={"label": marks}, ignore_removed=True))


async def gone(client: Any, backend: DockerBackend) -> bool:
    """Whether every container of the backend goes within a while."""
    for _ in range(200):
        if not await asyncio.to_thread(left, client, backend):
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.docker
async def test_a_container_that_a_stalled_daemon_makes_late_is_removed(
    gate: Any, behind: DockerBackend, client: Any, limits: Limits
) -> None:
    began = int(time.time())
    gate.opened.clear()
    started = time.monotonic()
    with pytest.raises(SandboxError, match="does not answer"):
        await behind.open(limits)
    assert time.monotonic() - started < SOON
    assert not left(client, behind)
    gate.opened.set()
    kinds = {"label": f"org.envgym.run={behind._labels['org.envgym.run']}", "type": "container"}

    def ended() -> None:
        for event in client.events(since=began, until=int(time.time()) + 20, filters=kinds, decode=True):
            if event["Action"] == "destroy":
                return
        raise AssertionError("it was never made, or stayed")

    await asyncio.to_thread(ended)
    assert await gone(client, behind)
    async with await behind.open(limits) as sandbox:
        assert (await sandbox.run_python("print(1)")).text == "1\n"


@pytest.mark.docker
async def test_a_daemon_that_stalls_under_a_sandbox_is_told_and_leaves_nothing(
    gate: Any, behind: DockerBackend, client: Any, limits: Limits
) -> None:
    sandbox = await behind.open(limits)
    gate.opened.clear()
    started = time.monotonic()
    with pytest.raises(SandboxError, match="does not answer"):
        await sandbox.run_python("print(1)", wall_seconds=60.0)
    assert time.monotonic() - started < SOON
    started = time.monotonic()
    await sandbox.close()
    assert time.monotonic() - started < SOON
    assert len(left(client, behind)) == 1
    gate.opened.set()
    assert await gone(client, behind)


@pytest.mark.docker
async def test_closing_a_backend_does_not_wait_for_a_stalled_daemon(
    gate: Any, behind: DockerBackend, client: Any, limits: Limits
) -> None:
    for _ in range(2):
        await behind.open(limits)
    gate.opened.clear()
    started = time.monotonic()
    await behind.close()
    assert time.monotonic() - started < SOON
    gate.opened.set()
    assert await gone(client, behind)


@pytest.mark.docker
async def test_a_daemon_that_is_slow_is_waited_for(gate: Any, behind: DockerBackend, limits: Limits) -> None:
    """It gives signs of life, so that a busy machine is not taken for a dead one."""
    gate.delay = lambda request: 3.0 if b"/containers/create" in request else 0.0
    async with await behind.open(limits) as sandbox:
        assert (await sandbox.run_python("print(1)")).text == "1\n"
