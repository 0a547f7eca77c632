"""Settings of a new container, as the Engine API's own dictionary, so that every flag can be asserted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envgym.sandbox.interface import Limits
from envgym_sandboxes.inside import wire
from envgym_sandboxes.runner_command import FOLDERS, PROGRAM_UID, filtered, runner_command, variables

__all__ = ["OWN_PROCESSES", "container_config"]

OWN_PROCESSES = 2
"""Number of the sandbox's own processes, the init and the runner, which count against the container's limit."""
_INODE_BYTES = 4096
_MIN_FILES = 64


def container_config(
    limits: Limits, *, image: str, python: str, labels: Mapping[str, str], runtime: str | None = None
) -> dict[str, Any]:
    """Return the body of ``POST /containers/create`` for one sandbox.

    The container starts as root with three capabilities, none of which the program keeps: SETUID and SETGID to
    become the program's user, KILL to end that user's processes.
    """
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "CapAdd": ["KILL", "SETGID", "SETUID"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": False,
        "ReadonlyRootfs": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Tmpfs": {
            **{folder: _tmpfs(limits.disk_bytes) for folder in FOLDERS},
            # In place of the file system of message queues, in which a program could leave names.
            "/dev/mqueue": "ro,nosuid,nodev,noexec,size=4096,mode=555",
        },
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "PidsLimit": limits.processes + OWN_PROCESSES,
        "NanoCpus": int(limits.cpus * 1e9),
        "Ulimits": [
            _ulimit("core", 0),
            _ulimit("nofile", max(limits.open_files, _MIN_FILES)),
            _ulimit("fsize", max(limits.disk_bytes, wire.MAX_BODY_BYTES)),
        ],
        "Init": True,
        "LogConfig": {"Type": "none", "Config": {}},
        "AutoRemove": True,
    }
    if runtime is not None:
        host["Runtime"] = runtime
    return {
        "Image": image,
        "Cmd": filtered(runner_command(python, limits, uid=PROGRAM_UID)),
        "Entrypoint": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "Env": variables(python),
        "Labels": dict(labels),
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "NetworkDisabled": True,
        "HostConfig": host,
    }


def _tmpfs(size: int) -> str:
    return f"rw,nosuid,nodev,noexec,size={size},nr_inodes={max(1024, size // _INODE_BYTES)},mode=1777"


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}
