"""Start one container with a runner in it, attached and answering."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Mapping

import docker
import requests
from docker.errors import DockerException, NotFound

from envgym.errors import SandboxError
from envgym.sandbox import Limits
from envgym_sandboxes.channel import Channel
from envgym_sandboxes.docker.flags import container_config
from envgym_sandboxes.docker.frames import Frames
from envgym_sandboxes.docker.image import Image
from envgym_sandboxes.worker import Worker

__all__ = ["Container", "launch"]


class Container(Worker):
    """A running container, its attached stream, and the means to end it."""

    def __init__(self, client: docker.DockerClient, identity: str, connection: socket.socket) -> None:
        self._client = client
        self._identity = identity
        self._frames = Frames()
        self.channel = Channel(connection, self._frames)

    def last_words(self) -> str:
        """The runner's complaint, or whether the daemon still answers for the container."""
        if self._frames.said:
            return self._frames.said.decode("utf-8", "replace").strip()
        try:
            state = self._client.api.inspect_container(self._identity)["State"]
        except NotFound:
            return "its container was removed"
        except (DockerException, requests.RequestException) as error:
            return f"the Docker daemon does not answer: {error}"
        return f"its container is {state['Status']}"

    def kill(self) -> None:
        """Remove the container by force."""
        self.channel.close()
        with contextlib.suppress(NotFound):
            self._client.api.remove_container(self._identity, force=True)


def launch(
    client: docker.DockerClient, limits: Limits, image: Image, labels: Mapping[str, str], runtime: str | None
) -> Container:
    """Create, attach and start a container; blocking.

    Raises:
        SandboxError: the daemon is gone, or refuses.
    """
    config = container_config(
        limits, image=image.reference, python=image.python, labels=labels, runtime=runtime
    )
    try:
        created = client.api.create_container_from_config(config, f"envgym-{secrets.token_hex(8)}")
        identity = created["Id"]
        try:
            wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            stream = client.api.attach_socket(identity, params=wanted)
            client.api.start(identity)
        except BaseException:
            with contextlib.suppress(DockerException):
                client.api.remove_container(identity, force=True)
            raise
    except (DockerException, requests.RequestException) as error:
        raise SandboxError(f"Docker could not start a sandbox: {error}") from error
    return Container(client, identity, stream._sock)
