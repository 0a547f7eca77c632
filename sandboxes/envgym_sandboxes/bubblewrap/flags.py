"""The command line of bubblewrap for one sandbox, as a list, so that tests can assert every flag."""

from __future__ import annotations

from pathlib import Path

from envgym.sandbox.interface import Limits
from envgym_sandboxes.interpreter import Interpreter
from envgym_sandboxes.runner_command import FOLDERS, PROGRAM_UID, WORK, runner_command, variables

__all__ = ["OWN_PROCESSES", "bwrap_command", "isolation"]

_CAPABILITIES = ("CAP_KILL", "CAP_SETGID", "CAP_SETUID")
OWN_PROCESSES = 2
"""Number of processes of the sandbox itself: bubblewrap and the runner."""


def isolation(*, as_root: bool) -> list[str]:
    """Return the flags that separate a sandbox from the machine, but for what it sees of the file system.

    Root makes no user namespace: inside one, its programs would still be root wherever the kernel checks the
    global user, as for ``/proc/sys``. Instead the runner keeps the rights to become another user, as in a
    container. Other users' programs run in a user namespace with a single user.
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
        limits: sizes of the writable folders, and the runner's rlimits.
        interpreter: files to bind read-only; nothing else of this machine is visible.
        binds: folders of the control group on this machine, with their paths inside; empty without a group.
        seccomp_descriptor: an open file that holds the system-call filter.
        as_root: true if root calls bubblewrap.
    """
    command = ["bwrap", *isolation(as_root=as_root), "--hostname", "sandbox"]
    command += ["--clearenv"]
    for variable in variables(interpreter.python):
        command += ["--setenv", *variable.split("=", 1)]
    command += ["--proc", "/proc", "--dev", "/dev"]
    inside = [*interpreter.trees, *(path for _, path in binds)]
    # Make parents explicitly: bubblewrap closes those that it makes for a bind to all users but its own.
    for parent in sorted({str(parent) for path in inside for parent in Path(path).parents}):
        command += ["--perms", "0755", "--dir", parent]
    packages = [path for path in interpreter.trees if path.startswith(f"{interpreter.site}/")]
    for path in [path for path in interpreter.trees if path not in packages]:
        command += ["--ro-bind", str(interpreter.trees[path]), path]
    # Hide the machine's own packages, which may lie within the standard library's folder.
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
    # Without a group, rlimits bound memory per process and the number of processes per user: better than nothing.
    instead = {"RLIMIT_AS": limits.memory_bytes, "RLIMIT_NPROC": limits.processes + OWN_PROCESSES}
    more_rlimits = None if binds else instead
    return command + runner_command(interpreter.python, limits, uid=uid, more_rlimits=more_rlimits)
