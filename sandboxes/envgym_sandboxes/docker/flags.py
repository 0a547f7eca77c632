"""What a container is created with, as the Engine API's own dictionary, so that every flag can be asserted."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from envgym.sandbox import Limits
from envgym_sandboxes import runner

__all__ = ["FOLDERS", "OWN_PROCESSES", "PROGRAM_UID", "WORK", "container_config", "runner_command"]

PROGRAM_UID = 61000
WORK = "/work"
FOLDERS = (WORK, "/tmp", "/dev/shm")
OWN_PROCESSES = 2
"""The init and the runner; they count against the container's limit of processes."""
_INODE_BYTES = 4096
_MIN_FILES = 64
_COUNTERS = {
    "oom": [["/sys/fs/cgroup/memory.events", "oom_kill"], ["/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"]],
    "pids": [["/sys/fs/cgroup/pids.events", "max"], ["/sys/fs/cgroup/pids/pids.events", "max"]],
}


def runner_command(python: str, config: Mapping[str, Any]) -> list[str]:
    """The command that starts the runner: its source travels as an argument, so nothing is mounted."""
    return [python, "-I", "-c", inspect.getsource(runner), json.dumps(config)]


def container_config(
    limits: Limits, *, image: str, python: str, labels: Mapping[str, str], runtime: str | None = None
) -> dict[str, Any]:
    """The body of ``POST /containers/create`` for one sandbox.

    The container starts as root with three capabilities, all of which are gone in the program: SETUID and SETGID
    to become the program's user, KILL to end that user's processes.
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
        "Tmpfs": {folder: _tmpfs(limits.disk_bytes) for folder in FOLDERS},
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "PidsLimit": limits.processes + OWN_PROCESSES,
        "NanoCpus": int(limits.cpus * 1e9),
        "Ulimits": [
            _ulimit("core", 0),
            _ulimit("nofile", max(limits.open_files, _MIN_FILES)),
            _ulimit("fsize", max(limits.disk_bytes, runner.MAX_BODY_BYTES)),
        ],
        "Init": True,
        "LogConfig": {"Type": "none", "Config": {}},
        "AutoRemove": True,
    }
    if runtime is not None:
        host["Runtime"] = runtime
    return {
        "Image": image,
        "Cmd": runner_command(python, _runner_config(limits)),
        "Entrypoint": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "Env": [
            f"PATH={python.rpartition('/')[0]}:/usr/local/bin:/usr/bin:/bin",
            "HOME=/work",
            "TMPDIR=/tmp",
            "LANG=C.UTF-8",
            "USER=program",
        ],
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


def _runner_config(limits: Limits) -> dict[str, Any]:
    return {
        "uid": PROGRAM_UID,
        "work": WORK,
        "folders": list(FOLDERS),
        "tables": [f"/proc/sysvipc/{kind}" for kind in ("shm", "sem", "msg")]
        + [f"/proc/net/{kind}" for kind in ("tcp", "tcp6", "udp", "udp6", "unix")],
        "counters": _COUNTERS,
        "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": limits.open_files, "RLIMIT_FSIZE": limits.disk_bytes},
    }


def _tmpfs(size: int) -> str:
    return f"rw,nosuid,nodev,noexec,size={size},nr_inodes={max(1024, size // _INODE_BYTES)},mode=1777"


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}
