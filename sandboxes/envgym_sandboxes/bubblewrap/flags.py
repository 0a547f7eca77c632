"""The command line of bubblewrap for one sandbox, as a list, so that every flag can be asserted."""

from __future__ import annotations

from pathlib import Path

from envgym.sandbox.interface import Limits
from envgym_sandboxes.interpreter import Interpreter
from envgym_sandboxes.runner_command import FOLDERS, PROGRAM_UID, WORK, runner_command, variables

__all__ = ["OWN_PROCESSES", "bwrap_command", "isolation"]

_CAPABILITIES = ("CAP_KILL", "CAP_SETGID", "CAP_SETUID")
OWN_PROCESSES = 2
"""Bubblewrap's own process and the runner."""


def isolation(*, as_root: bool) -> list[str]:
    """Return the flags that separate a sandbox from the machine, but for what it sees of the file system.

    Root makes no user namespace: in one, its programs would still be root to the kernel where it asks for the
    global user, as for ``/proc/sys``. Instead the runner keeps the rights to become another user, as in a
    container. Anyone else's programs run as that user, in a user namespace of one user.
    """
    flags = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup")]
    flags += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    if as_root:
        return flags + [part for name in _CAPABILITIES for part in ("--cap-add", name)]
    user = str(PROGRAM_UID)
    return [*flags, "--unshare-user", "--disable-userns", "--uid", user, "--gid", user]


def bwrap_command(
    limits: Limits,
    interpreter: Interpreter,
    binds: list[tuple[Path, str]],
    seccomp_descriptor: int,
    *,
    as_root: bool,
) -> list[str]:
    """Return the arguments that start a runner as process 1 of namespaces of its own.

    Args:
        limits: sizes of the writable folders and the runner's rlimits.
        interpreter: what is bound read-only; nothing else of this machine is visible.
        binds: the folders of its control group, here and inside; none if it has no group.
        seccomp_descriptor: an open file that holds the system-call filter.
        as_root: whether root calls bubblewrap.
    """
    command = ["bwrap", *isolation(as_root=as_root), "--hostname", "sandbox"]
    command += ["--clearenv"]
    for variable in variables(interpreter.python):
        command += ["--setenv", *variable.split("=", 1)]
    command += ["--proc", "/proc", "--dev", "/dev"]
    inside = [*interpreter.trees, *(path for _, path in binds)]
    # Made on the way to a bind, a folder would be closed to all but its maker.
    for parent in sorted({str(parent) for path in inside for parent in Path(path).parents}):
        command += ["--perms", "0755", "--dir", parent]
    packages = [path for path in interpreter.trees if path.startswith(f"{interpreter.site}/")]
    for path in [path for path in interpreter.trees if path not in packages]:
        command += ["--ro-bind", str(interpreter.trees[path]), path]
    # Over the machine's own packages, if they are within the standard library.
    command += ["--tmpfs", interpreter.site]
    for path in packages:
        command += ["--ro-bind", str(interpreter.trees[path]), path]
    for source, path in binds:
        command += ["--ro-bind", str(source), path]
    for folder in FOLDERS:
        command += ["--size", str(limits.disk_bytes), "--tmpfs", folder]
    for folder in (interpreter.site, "/dev", "/"):
        command += ["--remount-ro", folder]
    command += ["--seccomp", str(seccomp_descriptor), "--chdir", WORK, "--"]
    uid = PROGRAM_UID if as_root else None
    # Without a group the limits hold per process and per user only, which is better than not at all.
    instead = {"RLIMIT_AS": limits.memory_bytes, "RLIMIT_NPROC": limits.processes + OWN_PROCESSES}
    more_rlimits = None if binds else instead
    return command + runner_command(interpreter.python, limits, uid=uid, more_rlimits=more_rlimits)
