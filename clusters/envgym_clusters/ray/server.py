"""Servers on the machines of a Ray cluster: an actor holds each on a leash, and starts it anew when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from envgym.errors import UserError
from envgym.rollout.cluster import ServerProgram
from envgym.terminal import printable
from envgym_clusters.ray import leash

__all__ = ["RayServer", "ServerActor"]

_LOOK_SECONDS = 0.25
_CLOSE_SECONDS = 30.0
_SHOWN = 2_000
_LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections."""
_MOST_PAUSE_SECONDS = 60.0
_LOG = logging.getLogger(__name__)


class ServerActor:
    """One server, in a process of its own on this actor's machine.

    Args:
        program: ``ServerProgram`` in JSON.
        local: it is asked from this machine alone, and listens on loopback.
        paths: folders to look for modules in, besides its own.
    """

    def __init__(self, program: str, local: bool, paths: list[str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        self._program = ServerProgram.model_validate_json(program)
        self._host = _LOOPBACK if local else str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._process: subprocess.Popen[bytes] | None = None
        # Written at its end, wherever it was read last.
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - it lives as long as the actor

    async def start(self, port: int = 0) -> str:
        """Start the server, and return its address once it answers.

        Args:
            port: where it listens; 0 is a free one.

        Raises:
            RuntimeError: it ended, or does not answer in time; with the last of what it said.
        """
        self._end()
        port = port or _free_port(self._host)
        await self._freed(port)
        self._process = self._launched(port)
        address, end = f"http://{self._host}:{port}", time.monotonic() + self._program.start_seconds
        while not await asyncio.to_thread(_answers, address):
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with exit code {self._process.returncode}; it said: {self._said()}")
            if time.monotonic() > end:
                seconds = self._program.start_seconds
                raise RuntimeError(f"it does not answer at {address} after {seconds:g} s; it said: {self._said()}")
            await asyncio.sleep(_LOOK_SECONDS)
        return address

    async def ended(self) -> str:
        """Wait until the server has ended, and return the last of what it said."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
        return self._said()

    async def close(self) -> None:
        """End the server."""
        self._end()

    async def _freed(self, port: int) -> None:
        """Wait until an earlier server, which may have been killed just now, has let go of its port."""
        end = time.monotonic() + _CLOSE_SECONDS
        while not _is_free(self._host, port) and time.monotonic() < end:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(_LOOK_SECONDS)

    def _launched(self, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(leash.__file__)), *self._program.words(self._host, port)]
        variables = {**_variables(), **self._program.environment}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, env=variables)

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # the leash sees to the rest
            self._process.wait()
            self._process = None

    def _said(self) -> str:
        self._log.seek(max(0, self._log.seek(0, 2) - _SHOWN))
        return self._log.read().decode(errors="replace").strip() or "nothing"


class RayServer:
    """A server as the run sees it.

    Args:
        program: what to start.
        local: see ``ServerActor``.
        max_restarts: number of times that it is started anew.
        paths: see ``ServerActor``.
    """

    def __init__(self, program: ServerProgram, *, local: bool, max_restarts: int, paths: Sequence[str]) -> None:
        self.address = ""
        self.restarts = 0
        """Number of times that it was started anew."""
        self._most = max_restarts
        self._keeping: asyncio.Task[None] | None = None
        options = {"num_cpus": 0, "num_gpus": program.gpus, "max_restarts": max_restarts, "max_concurrency": 4}
        kind = ray.remote(ServerActor)
        self._actor: Any = kind.options(**options).remote(program.model_dump_json(), local, list(paths))

    async def start(self) -> None:
        """Start it, and keep it running.

        Raises:
            UserError: it cannot be started.
        """
        try:
            self.address = await self._actor.start.remote()
        except RayTaskError as error:
            raise UserError(f"cluster: a server did not start: {error.cause}") from error
        except RayActorError as error:
            raise UserError(f"cluster: the process of a server died when it started: {error}") from error
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Start the server anew at its address whenever it has ended, its actor has died, or both."""
        while self.restarts < self._most:
            said = "its machine is gone, or its process was killed"
            try:
                said = await self._actor.ended.remote()
            except ActorDiedError:
                return
            except RayActorError:
                pass
            await asyncio.sleep(min(_MOST_PAUSE_SECONDS, _LOOK_SECONDS * 2**self.restarts))
            self.restarts += 1
            _LOG.warning("the server at %s ended, and is started anew; it said: %s", self.address, printable(said))
            await self._start_anew()

    async def _start_anew(self) -> None:
        """Start it once its actor runs; what fails then is seen as another end."""
        while True:
            try:
                address = await self._actor.start.remote(int(self.address.rpartition(":")[2]))
            except (RayTaskError, ActorDiedError):
                return
            except RayActorError:  # Ray is about to start it
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                if address != self.address:
                    _LOG.error("the server at %s is at %s now: resume the run", self.address, address)
                return

    async def close(self) -> None:
        """End it, and its actor."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(RayError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._actor.close.remote()
        ray.kill(self._actor)


def _variables() -> dict[str, str]:
    """Return the variables of this process, without the key to its cluster."""
    return {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}


def _free_port(host: str) -> int:
    """Return a port that no outgoing connection takes between the end of a server and its next start."""
    return next(port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(host, port))


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as listening:
        # Connections of an earlier server may linger.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError:
            return False
    return True


def _answers(address: str) -> bool:
    """Return whether a server that speaks OpenAI's dialect answers, whatever it says of who asks."""
    try:
        with urllib.request.urlopen(f"{address}/v1/models", timeout=5.0):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
