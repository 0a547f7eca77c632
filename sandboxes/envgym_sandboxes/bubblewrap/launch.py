"""Start of one runner under bubblewrap, inside a control group, connected by a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Collection
from typing import IO

from envgym.errors import SandboxError
from envgym.sandbox.interface import Limits
from envgym_sandboxes.bubblewrap.cgroup import ControlGroup, create, missing_controllers
from envgym_sandboxes.bubblewrap.flags import OWN_PROCESSES, bwrap_command
from envgym_sandboxes.channel import Channel
from envgym_sandboxes.inside.seccomp import filter_program
from envgym_sandboxes.interpreter import Interpreter
from envgym_sandboxes.runner_command import FOLDERS
from envgym_sandboxes.verify_limits import verify
from envgym_sandboxes.worker import End, Worker

__all__ = ["GROUP_LIMITS", "Namespace", "launch"]

GROUP_LIMITS = frozenset({"memory_bytes", "swap", "processes", "cpus"})
"""Limits that only a control group can enforce."""
_SAID_BYTES = 4096
_END_SECONDS = 5.0
# Enter every group, then become bubblewrap, so that it never runs without limits.
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@"'


class Namespace(Worker):
    """A running bubblewrap process with its control group."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: socket.socket,
        complaints: IO[bytes],
        group: ControlGroup | None,
    ) -> None:
        self._process = process
        self._complaints = complaints
        self._group = group
        self.channel = Channel(connection)

    def end(self, since: float) -> End:
        """Ask the process and its group: it still runs, ran out of memory, or was ended from outside."""
        if self._process.poll() is None:
            return End(True, "it runs on without answering")
        if self._group is not None and self._group.out_of_memory():
            return End(True, "out of memory")
        said = self._said()
        return End(bool(said), said or f"bubblewrap ended with {self._process.returncode}")

    def kill(self) -> None:
        """Kill the process, and with it all its namespaces; remove the group."""
        self.channel.close()
        self._process.kill()
        self._process.wait(_END_SECONDS)
        self._complaints.close()
        if self._group is not None:
            self._group.remove()

    def _said(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read(_SAID_BYTES).decode("utf-8", "replace").strip()


def launch(limits: Limits, interpreter: Interpreter, *, degraded: Collection[str]) -> Namespace:
    """Start and verify one sandbox; blocks.

    Raises:
        SandboxError: the sandbox does not start, or a limit that is not in ``degraded`` is not in effect.
    """
    group = _group(limits, degraded)
    namespace = None
    try:
        namespace = _start(limits, interpreter, group)
        verify(namespace.channel, limits, folders=FOLDERS, own_processes=OWN_PROCESSES, degraded=degraded)
    except BaseException as error:
        if namespace is not None:
            words = namespace.end(0.0).words if isinstance(error, SandboxError) else ""
            namespace.kill()
            raise SandboxError(f"bubblewrap could not start a sandbox: {error}; {words}") from error
        if group is not None:
            group.remove()
        raise
    return namespace


def _group(limits: Limits, degraded: Collection[str]) -> ControlGroup | None:
    if missing_controllers() and set(degraded) >= GROUP_LIMITS:
        return None
    try:
        return create(limits, OWN_PROCESSES)
    except OSError as error:
        raise SandboxError(f"no control group could be made for the sandbox: {error}") from error


def _start(limits: Limits, interpreter: Interpreter, group: ControlGroup | None) -> Namespace:
    ours, theirs = socket.socketpair()
    complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
    filter_file = os.memfd_create("filter")
    try:
        os.write(filter_file, filter_program(os.uname().machine))
        os.lseek(filter_file, 0, os.SEEK_SET)
        entrances = group.entrances if group else []
        binds = group.binds() if group else []
        command = bwrap_command(limits, interpreter, binds, filter_file, as_root=os.geteuid() == 0)
        process = subprocess.Popen(
            ["/bin/sh", "-c", _ENTER, "enter", *entrances, "--", *command],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=complaints.fileno(),
            pass_fds=[filter_file],
        )
    except BaseException as error:
        ours.close()
        complaints.close()
        if isinstance(error, OSError):
            raise SandboxError(f"bubblewrap could not be started: {error}") from error
        raise
    finally:
        theirs.close()
        os.close(filter_file)
    return Namespace(process, ours, complaints, group)
