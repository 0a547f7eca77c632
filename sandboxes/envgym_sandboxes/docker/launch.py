"""Start of one container, with a runner in it that is attached and answers."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any

import docker
import requests
from docker.errors import DockerException, NotFound

from envgym.errors import SandboxError
from envgym.sandbox.interface import Limits
from envgym_sandboxes.channel import Channel
from envgym_sandboxes.docker.daemon import FAILURES, Daemon
from envgym_sandboxes.docker.flags import OWN_PROCESSES, container_config
from envgym_sandboxes.docker.frames import Frames
from envgym_sandboxes.docker.image import Image
from envgym_sandboxes.docker.sweep import remove
from envgym_sandboxes.runner_command import FOLDERS
from envgym_sandboxes.verify_limits import verify
from envgym_sandboxes.worker import End, Worker

__all__ = ["Container", "launch"]


class Container(Worker):
    """A running container with its attached stream."""

    def __init__(self, daemon: Daemon, identity: str, connection: socket.socket) -> None:
        self._daemon = daemon
        self._identity = identity
        self._frames = Frames()
        self.channel = Channel(connection, self._frames)

    def look(self) -> None:
        """Ask the daemon, which carries the channel, for a sign of life."""
        self._daemon.ping()

    def end(self, since: float) -> End:
        """Ask the daemon: still running, ended by the kernel for lack of memory, or ended from outside."""
        if self._frames.said:
            return End(True, self._frames.said.decode("utf-8", "replace").strip())
        try:
            state = self._daemon.call(lambda client: client.api.inspect_container(self._identity)["State"])
            if state["Running"] and not state["Paused"]:
                return End(True, "its container runs on without answering")
            words = f"its container is {state['Status']}"
        except NotFound:
            words = "its container was removed"
        except (SandboxError, *FAILURES) as error:
            return End(False, f"the Docker daemon does not answer: {error}")
        return End(True, "out of memory") if self._out_of_memory(since) else End(False, words)

    def _out_of_memory(self, since: float) -> bool:
        wanted = {"container": self._identity, "event": "oom"}

        def happened(client: docker.DockerClient) -> bool:
            return any(client.api.events(since=int(since), until=int(time.time()) + 1, filters=wanted))

        try:
            return self._daemon.call(happened)
        except (SandboxError, *FAILURES):
            return False

    def kill(self) -> None:
        """Remove the container by force, or leave word to do so with a daemon that does not answer."""
        self.channel.close()
        with contextlib.suppress(SandboxError, requests.RequestException):
            self._daemon.call(lambda client: remove(client, self._identity))


def launch(
    daemon: Daemon,
    limits: Limits,
    *,
    image: Image,
    labels: Mapping[str, str],
    runtime: str | None,
    degraded: Collection[str],
) -> Container:
    """Create, attach, start and verify a container; blocks.

    Raises:
        SandboxError: the daemon is gone or silent or refuses, or a limit not in ``degraded`` is not in effect.
    """
    config = container_config(limits, image=image.reference, python=image.python, labels=labels, runtime=runtime)
    try:
        identity, connection = daemon.call(lambda client: _started(client, config), _withdrawn)
    except FAILURES as error:
        raise SandboxError(f"Docker could not start a sandbox: {error}") from error
    container = Container(daemon, identity, connection)

    def check(_: docker.DockerClient) -> None:
        verify(container.channel, limits, folders=FOLDERS, own_processes=OWN_PROCESSES, degraded=degraded)

    try:
        daemon.call(check)
    except BaseException:
        container.kill()
        raise
    return container


def _started(client: docker.DockerClient, config: dict[str, Any]) -> tuple[str, socket.socket]:
    """Create and start a container; return its identity and its attached stream."""
    identity = client.api.create_container_from_config(config, f"envgym-{secrets.token_hex(8)}")["Id"]
    try:
        wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        stream = client.api.attach_socket(identity, params=wanted)
        try:
            # Duplicate the socket: the HTTP client closes its own when it is garbage-collected.
            connection = socket.socket(fileno=os.dup(stream.fileno()))
        finally:
            stream._response.close()
        try:
            client.api.start(identity)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        with contextlib.suppress(DockerException):
            remove(client, identity)
        raise
    return identity, connection


def _withdrawn(client: docker.DockerClient, started: tuple[str, socket.socket]) -> None:
    """Remove a container that started when nobody waited for it any more."""
    identity, connection = started
    connection.close()
    remove(client, identity)
