"""Sandboxes in Docker containers: warm, wiped and verified between episodes, with a runner that forks."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import docker
import pydantic
import requests
from docker.errors import DockerException

from envgym.errors import SandboxError
from envgym.sandbox.interface import Backend, Limits
from envgym_sandboxes.docker.image import Image, built_image, pinned_image
from envgym_sandboxes.docker.launch import Container, launch
from envgym_sandboxes.docker.sweep import labels, sweep
from envgym_sandboxes.pool import SandboxPool, default_capacity
from envgym_sandboxes.session import RunnerSandbox, open_session

__all__ = ["DockerBackend"]

_ANSWER_SECONDS = 5


class DockerBackend(Backend):
    """Runs programs in containers without network, rights or a writable root."""

    class Config(Backend.Config):
        """Settings of the containers."""

        image: str | None = pydantic.Field(
            default=None,
            description="a public image by digest; one is built of this machine's interpreter by default",
        )
        python: str = pydantic.Field(
            default="/usr/local/bin/python3", description="the interpreter in image; ignored without it"
        )
        packages: tuple[str, ...] = pydantic.Field(
            default=("numpy",), description="distributions that programs may import, with what they require"
        )
        runtime: str | None = pydantic.Field(default=None, description="the OCI runtime, e.g. runsc for gVisor")
        capacity: int = pydantic.Field(
            default_factory=default_capacity, ge=1, description="containers alive at once; two a core, at most 16"
        )
        reuse: bool = pydantic.Field(
            default=True,
            description="wipe and verify a container for the next episode",
        )
        degraded: tuple[str, ...] = pydantic.Field(
            default=(), description="limits to go without where the runtime cannot enforce them, e.g. cpus"
        )

    config: Config
    rank = 20

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._labels = labels()
        self._preparing = threading.Lock()
        self._prepared: tuple[docker.DockerClient, Image] | None = None
        self._pool = SandboxPool(self._launch, self.config.capacity)

    @classmethod
    def unavailable(cls) -> str | None:
        """Return the reason why no Docker daemon can be used, or ``None``."""
        host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        try:
            _reach_socket(host)
            client = docker.from_env(timeout=_ANSWER_SECONDS)
            try:
                client.ping()
            finally:
                client.close()
        except (DockerException, requests.RequestException, OSError) as error:
            return f"no Docker daemon answers at {host} ({error}); start one, or set DOCKER_HOST"
        return None

    @classmethod
    def clean(cls) -> int:
        """Remove the containers of dead owners; see ``Backend.clean``."""
        client = docker.from_env()
        try:
            return sweep(client)
        finally:
            client.close()

    async def prepare(self) -> str:
        """Find or build the image, and return its name; see ``Backend.prepare``."""
        try:
            return (await asyncio.to_thread(self._prepare))[1].reference
        except (DockerException, requests.RequestException) as error:
            raise SandboxError(f"Docker could not make the image: {error}") from error

    async def open(self, limits: Limits) -> RunnerSandbox:
        """Borrow a warm container, or start one; see ``Backend.open``."""
        return await open_session(self._pool, limits, reusable=self.config.reuse)

    async def close(self) -> None:
        """Remove every container of this backend; see ``Backend.close``."""
        await self._pool.close()
        with self._preparing:
            prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await asyncio.to_thread(prepared[0].close)

    def _launch(self, limits: Limits) -> Container:
        client, image = self._prepare()
        return launch(
            client,
            limits,
            image=image,
            labels=self._labels,
            runtime=self.config.runtime,
            degraded=frozenset(self.config.degraded),
        )

    def _prepare(self) -> tuple[docker.DockerClient, Image]:
        with self._preparing:
            if self._prepared is None:
                client = docker.from_env()
                try:
                    sweep(client)
                    image = self._image(client)
                except BaseException:
                    client.close()
                    raise
                self._prepared = client, image
            return self._prepared

    def _image(self, client: docker.DockerClient) -> Image:
        if self.config.image is None:
            return built_image(client, self.config.packages)
        return pinned_image(client, self.config.image, self.config.python)


def _reach_socket(host: str) -> None:
    """Connect to a daemon's Unix socket and close it; Docker's client leaks the socket of one that is not there.

    Raises:
        OSError: nobody listens.
    """
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(_ANSWER_SECONDS)
            caller.connect(host.removeprefix("unix://"))
