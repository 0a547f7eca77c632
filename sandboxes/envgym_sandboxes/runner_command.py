"""A program's command, environment and folders inside, the same for every backend that uses the runner."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any

from envgym.sandbox import source_file
from envgym.sandbox.interface import Limits
from envgym_sandboxes.inside import cells, file_transfer, program, runner, seccomp, watch, wire

__all__ = ["FOLDERS", "PROGRAM", "PROGRAM_UID", "WORK", "filtered", "runner_command", "runner_source", "variables"]

PROGRAM_UID = 61000
WORK = "/work"
PROGRAM = "/program"
"""Holds the file of the program that runs, apart from the files that it works on."""
FOLDERS = (WORK, PROGRAM, "/tmp", "/dev/shm")
"""The writable folders."""
_TABLES = [f"/proc/sysvipc/{kind}" for kind in ("shm", "sem", "msg")] + [
    f"/proc/net/{kind}" for kind in ("tcp", "tcp6", "udp", "udp6", "unix")
]
_GROUPS = "/sys/fs/cgroup"
_COUNTERS = {
    "oom": [[f"{_GROUPS}/memory.events", "oom_kill"], [f"{_GROUPS}/memory/memory.oom_control", "oom_kill"]],
    "pids": [[f"{_GROUPS}/pids.events", "max"], [f"{_GROUPS}/pids/pids.events", "max"]],
}

_BOOTSTRAP = """
import sys, types
for name, source in {sources!r}.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
del name, source
module.main()
"""


@functools.cache
def runner_source() -> str:
    """Return the runner as one text for ``python -c``; it makes its modules in memory, in import order."""
    modules = (source_file, wire, watch, program, cells, file_transfer, runner)
    return _BOOTSTRAP.format(sources={module.__name__: inspect.getsource(module) for module in modules})


def variables(python: str) -> list[str]:
    """Return the whole environment of a program, as ``NAME=value``."""
    return [
        f"PATH={python.rpartition('/')[0]}:/usr/local/bin:/usr/bin:/bin",
        f"HOME={WORK}",
        "TMPDIR=/tmp",
        "LANG=C.UTF-8",
        "USER=program",
    ]


def runner_command(
    python: str, limits: Limits, *, uid: int | None, more_rlimits: Mapping[str, int] | None = None
) -> list[str]:
    """Return the command that starts the runner: its source travels as an argument, so nothing is mounted.

    Args:
        python: path of the interpreter inside.
        limits: limits that become the program's rlimits.
        uid: user id of programs; ``None`` keeps the runner's own.
        more_rlimits: further rlimits of a program, by the name of the constant.
    """
    rlimits = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": limits.open_files, "RLIMIT_FSIZE": limits.disk_bytes}
    config: dict[str, Any] = {
        "uid": uid,
        "work": WORK,
        "program": PROGRAM,
        "folders": list(FOLDERS),
        "tables": _TABLES,
        "counters": _COUNTERS,
        "rlimits": {**rlimits, **(more_rlimits or {})},
    }
    return [python, "-I", "-c", runner_source(), json.dumps(config)]


def filtered(command: list[str]) -> list[str]:
    """Return the command that puts the filter of system calls in effect and becomes ``command``, a Python's."""
    source = f"{inspect.getsource(seccomp)}\nimport sys\nenter(sys.argv[1:])\n"
    return [command[0], "-I", "-S", "-c", source, *command]
