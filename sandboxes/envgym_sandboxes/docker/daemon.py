"""Calls to the Docker daemon: each may take its time while the daemon lives, and fails soon once it is silent.

A daemon that is stopped or out of memory still accepts connections, and a call would wait as long as its client
allows. So every call runs in a thread of its own, beside which the daemon is asked for a sign of life.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import docker
import requests
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import DockerException

from envgym.errors import SandboxError

__all__ = ["FAILURES", "Daemon"]

FAILURES = (DockerException, requests.RequestException, OSError)
"""What a call raises if the daemon refuses it or goes away."""
_ANSWER_SECONDS = 3.0
_LOOK_SECONDS = 0.5
"""Time after which a call is doubted, and between two signs of life."""
_MEMORY_SECONDS = 1.0
"""Time for which a silent daemon is not asked again, so that many calls do not wait one after another."""
_CALL_SECONDS = 3600

T = TypeVar("T")


class Daemon:
    """The daemon that the environment names, connected to when it is first called. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: tuple[docker.DockerClient, docker.DockerClient] | None = None
        self._silent_until = 0.0

    def call(
        self,
        work: Callable[[docker.DockerClient], T],
        undo: Callable[[docker.DockerClient, T], None] | None = None,
    ) -> T:
        """Return the result of ``work``; blocks.

        Args:
            work: makes requests with the client that it is given.
            undo: what to do about the result if the daemon gives it after all, once nobody waits for it.

        Raises:
            SandboxError: the daemon does not answer. The request may be carried out when it does again.
        """
        client, _ = self._connected()
        result: Future[T] = Future()
        threading.Thread(target=_run, args=(result, work, client), name="envgym-docker", daemon=True).start()
        while not wait([result], timeout=_LOOK_SECONDS).done:
            try:
                self.ping()
            except SandboxError:
                result.add_done_callback(lambda late: _undo(late, undo, client))
                raise
        return result.result()

    def ping(self) -> None:
        """Find out that the daemon is there; blocks.

        Raises:
            SandboxError: it is not, or it does not answer.
        """
        self._ask(self._connected()[1].ping)

    def close(self) -> None:
        """Close the connections that are idle. Safe to call twice; a call connects anew."""
        with self._lock:
            clients, self._clients = self._clients, None
        for client in clients or ():
            client.close()

    def _connected(self) -> tuple[docker.DockerClient, docker.DockerClient]:
        with self._lock:
            if self._clients is None:
                self._clients = self._ask(_clients)
            return self._clients

    def _ask(self, question: Callable[[], T]) -> T:
        """Return the answer to a question that a living daemon answers at once."""
        if time.monotonic() < self._silent_until:
            raise SandboxError("the Docker daemon does not answer")
        try:
            return question()
        except FAILURES as error:
            if isinstance(error, (requests.Timeout, TimeoutError, BlockingIOError)):
                self._silent_until = time.monotonic() + _MEMORY_SECONDS
            raise SandboxError(f"the Docker daemon does not answer: {error}") from error


def _run(result: Future[T], work: Callable[[docker.DockerClient], T], client: docker.DockerClient) -> None:
    try:
        result.set_result(work(client))
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
        result.set_exception(error)


def _undo(
    late: Future[T], undo: Callable[[docker.DockerClient, T], None] | None, client: docker.DockerClient
) -> None:
    if undo is not None and late.exception() is None:
        with contextlib.suppress(*FAILURES):
            undo(client, late.result())


def _clients() -> tuple[docker.DockerClient, docker.DockerClient]:
    """Return a patient client, and one that asks for signs of life.

    Neither finds out the version by itself, as the client does by default: it would leak a socket on failure.
    """
    _reach_socket()
    with contextlib.closing(docker.from_env(version=MINIMUM_DOCKER_API_VERSION, timeout=_ANSWER_SECONDS)) as first:
        version = first.version(api_version=False)["ApiVersion"]
    patient, probe = (
        docker.from_env(version=version, timeout=limit) for limit in (_CALL_SECONDS, _ANSWER_SECONDS)
    )
    return patient, probe


def _reach_socket() -> None:
    """Connect to the daemon's Unix socket and close it; Docker's client leaks the socket of one that is not there.

    Raises:
        OSError: nobody listens.
    """
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(_ANSWER_SECONDS)
            caller.connect(host.removeprefix("unix://"))
