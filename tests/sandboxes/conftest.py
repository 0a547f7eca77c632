"""Backends shared by a whole worker process, and a fresh sandbox for each test."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox
from envgym.sandbox.selection import sandboxes

LIMITS = Limits(
    wall_seconds=10.0,
    total_seconds=60.0,
    memory_bytes=128 * 2**20,
    disk_bytes=8 * 2**20,
    output_bytes=64 * 2**10,
    processes=32,
    open_files=64,
)
ISOLATED = [pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"]


def make_backend(name: str) -> Backend:
    """Make a backend, or skip with the reason why it does not work here; fail where CI promises it."""
    kind: type[Backend] = sandboxes.load(name)
    reason = kind.unavailable()
    if reason is not None:
        if os.environ.get(f"ENVGYM_REQUIRE_{name.upper()}") == "1":
            pytest.fail(f"{name} is required here: {reason}")
        pytest.skip(reason)
    return kind()


@pytest.fixture(scope="session")
def limits() -> Limits:
    """Small limits that most tests share, so that they share warm sandboxes, too."""
    return LIMITS


@pytest.fixture(scope="session")
def shared_backend() -> Iterator[Callable[[str], Backend]]:
    """Make each backend once, by name, for all the tests of a worker process."""
    made: dict[str, Backend] = {}

    def get(name: str) -> Backend:
        if name not in made:
            made[name] = make_backend(name)
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
async def docker_sandbox_and_container(limits: Limits) -> AsyncIterator[tuple[Sandbox, Any]]:
    """A sandbox of a backend of its own, and its container as the Docker client sees it."""
    import docker

    from envgym_sandboxes.docker.sweep import labels

    own = make_backend("docker")
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
