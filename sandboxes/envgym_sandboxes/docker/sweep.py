"""Removal of containers whose owners are dead, and of no others."""

from __future__ import annotations

import contextlib
import secrets

import docker
from docker.errors import APIError, NotFound

from envgym_sandboxes.process_identity import is_dead, this_process

__all__ = ["labels", "remove", "sweep"]

_RUN = "org.envgym.run"
_OWNER = "org.envgym.owner"
_CONFLICT = 409
_REMOVE_SECONDS = 10


def labels() -> dict[str, str]:
    """Return the labels of one backend's containers: its run, and this process."""
    return {_RUN: secrets.token_hex(8), _OWNER: this_process()}


def sweep(client: docker.DockerClient) -> int:
    """Remove every container whose owner is dead, and return their number."""
    removed = 0
    for found in client.api.containers(all=True, filters={"label": _OWNER}):
        if not is_dead(found["Labels"][_OWNER]):
            continue
        with contextlib.suppress(APIError):
            client.api.unpause(found["Id"])
        remove(client, found["Id"])
        removed += 1
    return removed


def remove(client: docker.DockerClient, identity: str) -> None:
    """Remove a container by force and wait until it is gone, even if its removal has begun already."""
    try:
        client.api.remove_container(identity, force=True)
    except NotFound:
        return
    except APIError as error:
        if error.response is None or error.response.status_code != _CONFLICT:
            raise
        with contextlib.suppress(NotFound):
            client.api.wait(identity, timeout=_REMOVE_SECONDS, condition="removed")
