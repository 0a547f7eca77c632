"""A program that reports, from inside a sandbox, which limits and rights are in effect."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["probe"]

_PROGRAM = """
import json, os, resource

def first(*paths):
    for path in paths:
        try:
            with open("/sys/fs/cgroup/" + path) as file:
                return file.read().split()
        except OSError:
            pass
    return None

def size(folder):
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return room.f_blocks * room.f_frsize

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
period = first("cpu/cpu.cfs_period_us")
mounts = [line.split()[1] for line in open("/proc/self/mounts")]
quota = first("cpu/cpu.cfs_quota_us")
print(json.dumps({
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16),
    "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "memory": first("memory.max", "memory/memory.limit_in_bytes"),
    "swap": first("memory.swap.max"),
    "memory_and_swap": first("memory/memory.memsw.limit_in_bytes"),
    "processes": first("pids.max", "pids/pids.max"),
    "cpus": first("cpu.max") or (quota and period and quota + period),
    "folders": {os.path.abspath(folder): size(folder) for folder in %s},
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "file_size": resource.getrlimit(resource.RLIMIT_FSIZE),
    "writable": [at for at in mounts if os.path.isdir(at) and os.access(at, os.W_OK)],
    "root_writable": not os.statvfs("/").f_flag & os.ST_RDONLY,
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
}))
"""


def probe(folders: Collection[str]) -> str:
    """Return the source of a Linux program that prints one JSON object: user, rights, limits, network, folders.

    Control-group limits are the words that the kernel writes, or null if the file does not exist.

    Args:
        folders: folders to size, in bytes by absolute path; null for a missing one.
    """
    return _PROGRAM % repr(list(folders))
