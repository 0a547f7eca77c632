"""Backends shared by a whole worker process, and a fresh sandbox for each test."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox
from envgym.testing.sandboxes import SandboxContract

LIMITS = SandboxContract.limits
ISOLATED = [pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"]


@pytest.fixture(scope="session")
def limits() -> Limits:
    """Small limits that most tests share, so that they share warm sandboxes, too."""
    return LIMITS


@pytest.fixture(scope="session")
def shared_backend(usable_backend: Callable[[str], type[Backend]]) -> Iterator[Callable[[str], Backend]]:
    """Make each backend once, by name, for all the tests of a worker process."""
    made: dict[str, Backend] = {}

    def get(name: str) -> Backend:
        if name not in made:
            made[name] = usable_backend(name)()
        return made[name]

    yield get
    for backend in made.values():
        asyncio.run(backend.close())


@pytest.fixture(scope="session")
def docker_backend(shared_backend: Callable[[str], Backend]) -> Backend:
    return shared_backend("docker")


@pytest.fixture(scope="session")
def bubblewrap_backend(shared_backend: Callable[[str], Backend]) -> Backend:
    return shared_backend("bubblewrap")


@pytest.fixture(params=ISOLATED)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each isolated backend in turn."""
    shared: Backend = request.getfixturevalue(f"{request.param}_backend")
    return shared


@pytest.fixture
async def sandbox(backend: Backend, limits: Limits) -> AsyncIterator[Sandbox]:
    """A fresh sandbox of each isolated backend."""
    async with await backend.open(limits) as opened:
        yield opened


@pytest.fixture
async def docker_sandbox_and_container(
    limits: Limits, usable_backend: Callable[[str], type[Backend]]
) -> AsyncIterator[tuple[Sandbox, Any]]:
    """A sandbox of a backend of its own, and its container as the Docker client sees it."""
    import docker

    from envgym_sandboxes.docker.sweep import labels

    own = usable_backend("docker")()
    client = docker.from_env()
    try:
        patient = dataclasses.replace(limits, total_seconds=600.0)
        async with await own.open(patient) as opened:
            marks = [f"{name}={value}" for name, value in own._labels.items()]  # type: ignore[attr-defined]
            assert set(own._labels) == set(labels())  # type: ignore[attr-defined]
            (container,) = client.containers.list(filters={"label": marks})
            yield opened, container
    finally:
        await own.close()
        client.close()


class Gate:
    """Stands between the client and the real daemon; while it is shut, nothing passes and nothing is lost."""

    def __init__(self, path: Path) -> None:
        self.opened = threading.Event()
        self.opened.set()
        self.delay: Callable[[bytes], float] = lambda request: 0.0
        """Seconds for which a piece that the client sends is held up."""
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, daemon = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
                daemon.connect("/var/run/docker.sock")
                self._ends += [client, daemon]
                for source, target, held in ((client, daemon, True), (daemon, client, False)):
                    threading.Thread(target=self._pump, args=(source, target, held), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, held: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.opened.wait()
                time.sleep(self.delay(data) if held else 0.0)
                target.sendall(data)
            self.opened.wait()
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Cut every connection and take no more."""
        self.opened.set()
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable_backend: Callable[[str], type[Backend]]
) -> Iterator[Gate]:
    """The way that a client takes to the Docker daemon."""
    usable_backend("docker")
    made = Gate(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'docker.sock'}")
    yield made
    made.close()
