"""Remove the containers whose owners are dead, and no others."""

from __future__ import annotations

import contextlib
import secrets

import docker
from docker.errors import APIError, NotFound

from envgym_sandboxes.owner import is_dead, this_owner

__all__ = ["labels", "sweep"]

_RUN = "org.envgym.run"
_OWNER = "org.envgym.owner"


def labels() -> dict[str, str]:
    """What marks the containers of one backend: a run of its own, and this process."""
    return {_RUN: secrets.token_hex(8), _OWNER: this_owner()}


def sweep(client: docker.DockerClient) -> int:
    """Remove every container whose owner is dead; return how many there were."""
    removed = 0
    for found in client.api.containers(all=True, filters={"label": _OWNER}):
        if not is_dead(found["Labels"][_OWNER]):
            continue
        with contextlib.suppress(APIError):
            client.api.unpause(found["Id"])
        # Another process may sweep at the same time, and the container may be removing itself.
        with contextlib.suppress(NotFound):
            _remove(client, found["Id"])
            removed += 1
    return removed


def _remove(client: docker.DockerClient, identity: str) -> None:
    try:
        client.api.remove_container(identity, force=True)
    except APIError as error:
        if error.response is None or error.response.status_code != 409:
            raise
