"""Memory, process and processor limits for a process tree, through control groups of version 1 or 2."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from envgym.sandbox.interface import Limits
from envgym_sandboxes.process_identity import is_dead, this_process

__all__ = ["ControlGroup", "create", "missing_controllers", "sweep"]

_CONTROLLERS = ("memory", "pids", "cpu")
_PREFIX = "envgym-"
_PERIOD_MICROSECONDS = 100_000
_REMOVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlGroup:
    """A control group with its limits: one folder per controller (version 1) or one for all (version 2)."""

    folders: dict[str, Path]

    @property
    def entrances(self) -> list[str]:
        """Files into which a process writes its id to come under the limits."""
        return sorted({str(folder / "cgroup.procs") for folder in self.folders.values()})

    def binds(self) -> list[tuple[Path, str]]:
        """Return the folders to show inside, as pairs of a folder here and its usual path in a container."""
        if len(set(self.folders.values())) == 1:
            return [(self.folders["memory"], "/sys/fs/cgroup")]
        return [(folder, f"/sys/fs/cgroup/{name}") for name, folder in self.folders.items()]

    def out_of_memory(self) -> bool:
        """Return whether the kernel has ended a process of the group for lack of memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(FileNotFoundError):
                lines = (self.folders["memory"] / name).read_text().splitlines()
                return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)
        return False

    def remove(self) -> None:
        """Remove the folders once their processes are gone."""
        end = time.monotonic() + _REMOVE_SECONDS
        for folder in set(self.folders.values()):
            while not _removed(folder) and time.monotonic() < end:
                time.sleep(0.005)


def missing_controllers() -> list[str]:
    """Return the controllers under which this process cannot make groups."""
    missing = []
    for controller, folder in _own_folders().items():
        if folder is None or not os.access(folder, os.W_OK):
            missing.append(controller)
    return missing


def create(limits: Limits, own_processes: int) -> ControlGroup:
    """Make a group and put the limits in effect.

    Raises:
        OSError: a controller is missing or not delegated to this user.
    """
    name = f"{_PREFIX}{this_process().replace('/', '~')}~{secrets.token_hex(4)}"
    folders = {}
    for controller, parent in _own_folders().items():
        if parent is None:
            raise FileNotFoundError(f"the control-group controller {controller!r} is not available")
        folders[controller] = parent / name
    group = ControlGroup(folders=folders)
    try:
        for folder in set(folders.values()):
            folder.mkdir()
        _limit(group, limits, own_processes)
    except BaseException:
        group.remove()
        raise
    return group


def sweep() -> int:
    """Remove the groups of dead owners, and return the number of their sandboxes."""
    swept = set()
    for parent in {folder for folder in _own_folders().values() if folder is not None}:
        for folder in parent.glob(f"{_PREFIX}*"):
            owner = folder.name.removeprefix(_PREFIX).rpartition("~")[0].replace("~", "/")
            if is_dead(owner) and _removed(folder):
                swept.add(folder.name)
    return len(swept)


def _limit(group: ControlGroup, limits: Limits, own_processes: int) -> None:
    memory, pids, cpu = (group.folders[name] for name in _CONTROLLERS)
    quota = int(limits.cpus * _PERIOD_MICROSECONDS)
    (pids / "pids.max").write_text(str(limits.processes + own_processes))
    if (memory / "memory.max").exists():
        (memory / "memory.max").write_text(str(limits.memory_bytes))
        (memory / "memory.swap.max").write_text("0")
        (cpu / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
        return
    (memory / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
    (memory / "memory.memsw.limit_in_bytes").write_text(str(limits.memory_bytes))
    (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
    (cpu / "cpu.cfs_quota_us").write_text(str(quota))


def _own_folders() -> dict[str, Path | None]:
    """Return the folders in which this process may make groups, by controller: its own group's, or none."""
    places: dict[str, Path | None] = dict.fromkeys(_CONTROLLERS)
    mounts = _mounts()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for controller in _CONTROLLERS:
            if controller in names.split(",") and controller in mounts:
                places[controller] = mounts[controller] / path.lstrip("/")
        if not names and "" in mounts:
            folder = mounts[""] / path.lstrip("/")
            offered = folder / "cgroup.subtree_control"
            handed_down = offered.read_text().split() if offered.exists() else []
            for controller in set(_CONTROLLERS) & set(handed_down):
                places[controller] = folder
    return places


def _mounts() -> dict[str, Path]:
    """Return mount points by controller; the unified hierarchy stands under the empty name."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found[""] = Path(where)
        elif kind == "cgroup":
            found.update(dict.fromkeys(set(options.split(",")) & set(_CONTROLLERS), Path(where)))
    return found


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
