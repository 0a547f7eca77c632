"""Sandboxes in Docker containers: warm, wiped and verified between episodes, with a runner that forks."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import docker
import pydantic

from envgym.errors import SandboxError
from envgym.sandbox.interface import Backend, Limits
from envgym_sandboxes.docker.daemon import FAILURES, Daemon
from envgym_sandboxes.docker.image import Image, built_image, pinned_image
from envgym_sandboxes.docker.launch import Container, launch
from envgym_sandboxes.docker.sweep import labels, sweep
from envgym_sandboxes.pool import SandboxPool, default_capacity
from envgym_sandboxes.session import RunnerSandbox, open_session

__all__ = ["DockerBackend"]


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
        self._daemon = Daemon()
        self._image: Image | None = None
        self._pool = SandboxPool(self._launch, self.config.capacity)

    @classmethod
    def unavailable(cls) -> str | None:
        """Return the reason why no Docker daemon can be used, or ``None``."""
        daemon = Daemon()
        try:
            daemon.ping()
        except SandboxError as error:
            host = os.environ.get("DOCKER_HOST") or "its usual socket"
            return f"no Docker daemon answers at {host} ({error}); start one, or set DOCKER_HOST"
        finally:
            daemon.close()
        return None

    @classmethod
    def clean(cls) -> int:
        """Remove the containers of dead owners; see ``Backend.clean``."""
        daemon = Daemon()
        try:
            return daemon.call(sweep)
        except FAILURES as error:
            raise SandboxError(f"Docker could not remove containers: {error}") from error
        finally:
            daemon.close()

    async def prepare(self) -> str:
        """Find or build the image, and return its name; see ``Backend.prepare``."""
        return (await asyncio.to_thread(self._prepare)).reference

    async def open(self, limits: Limits) -> RunnerSandbox:
        """Borrow a warm container, or start one; see ``Backend.open``."""
        return await open_session(self._pool, limits, reusable=self.config.reuse)

    async def close(self) -> None:
        """Remove every container of this backend; see ``Backend.close``."""
        await self._pool.close()
        await asyncio.to_thread(self._daemon.close)

    def _launch(self, limits: Limits) -> Container:
        return launch(
            self._daemon,
            limits,
            image=self._prepare(),
            labels=self._labels,
            runtime=self.config.runtime,
            degraded=frozenset(self.config.degraded),
        )

    def _prepare(self) -> Image:
        with self._preparing:
            if self._image is None:
                try:
                    self._daemon.call(sweep)
                    self._image = self._daemon.call(self._find_image)
                except FAILURES as error:
                    raise SandboxError(f"Docker could not make the image: {error}") from error
            return self._image

    def _find_image(self, client: docker.DockerClient) -> Image:
        if self.config.image is None:
            return built_image(client, self.config.packages)
        return pinned_image(client, self.config.image, self.config.python)
