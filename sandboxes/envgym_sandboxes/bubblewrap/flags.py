"""The command line of bubblewrap for one sandbox, as a list, so that every flag can be asserted."""

from __future__ import annotations

from pathlib import Path

from envgym.sandbox import Limits
from envgym_sandboxes.environment import FOLDERS, PROGRAM_UID, WORK, runner_command, variables
from envgym_sandboxes.interpreter import Interpreter

__all__ = ["OWN_PROCESSES", "bwrap_command"]

OWN_PROCESSES = 2
"""Bubblewrap's own process and the runner."""


def bwrap_command(
    limits: Limits, interpreter: Interpreter, binds: list[tuple[Path, str]], seccomp_descriptor: int
) -> list[str]:
    """The arguments that start a runner as process 1 of namespaces of its own.

    Args:
        limits: sizes of the writable folders and the runner's rlimits.
        interpreter: what is bound read-only; nothing else of this machine is visible.
        binds: more read-only folders, here and inside.
        seccomp_descriptor: an open file that holds the system-call filter.
    """
    command = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    command += ["--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"]
    command += ["--uid", str(PROGRAM_UID), "--gid", str(PROGRAM_UID)]
    command += ["--clearenv"]
    for variable in variables(interpreter.python):
        command += ["--setenv", *variable.split("=", 1)]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for inside, source in interpreter.trees.items():
        command += ["--ro-bind", str(source), inside]
        if interpreter.site.startswith(f"{inside}/"):
            command += ["--tmpfs", interpreter.site]
    for source, inside in binds:
        command += ["--ro-bind", str(source), inside]
    for folder in FOLDERS:
        command += ["--size", str(limits.disk_bytes), "--tmpfs", folder]
    for folder in (interpreter.site, "/dev", "/"):
        command += ["--remount-ro", folder]
    command += ["--seccomp", str(seccomp_descriptor), "--chdir", WORK, "--"]
    return command + runner_command(interpreter.python, limits, uid=None)
