"""Verification of a started sandbox: read its limits back from inside, and refuse it if one is not in effect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from typing import Any

from envgym.errors import SandboxError
from envgym.sandbox.interface import Limits
from envgym.sandbox.probe import probe
from envgym_sandboxes.channel import Channel
from envgym_sandboxes.inside import wire
from envgym_sandboxes.request_codec import pack_code

__all__ = ["differences", "verify"]

_START_SECONDS = 20.0
_MEMORY_PAGE = 4096


def verify(
    channel: Channel,
    limits: Limits,
    *,
    folders: Collection[str],
    own_processes: int,
    degraded: Collection[str],
) -> None:
    """Read a started sandbox's limits with a program inside. Blocks; call it in a thread without an event loop.

    Args:
        channel: the new sandbox's channel.
        limits: the limits that must be in effect.
        folders: the writable folders.
        own_processes: number of the sandbox's own processes that count against its limit.
        degraded: names of limits that the user has agreed to do without.

    Raises:
        SandboxError: the sandbox does not answer, or a limit is not in effect.
    """
    code = pack_code(probe(folders))
    asked = channel.request(
        wire.PYTHON, wall_seconds=_START_SECONDS, cap=1 << 16, body=code, grace_seconds=_START_SECONDS
    )
    try:
        reply = asyncio.run(asked)
    except TimeoutError as error:
        raise SandboxError(f"a new sandbox did not answer in {2 * _START_SECONDS:.0f} s") from error
    try:
        facts = json.loads(reply.stdout)
    except ValueError as error:
        said = (reply.stderr or reply.stdout).decode("utf-8", "replace").strip()
        raise SandboxError(f"a new sandbox cannot run Python: {said or 'no output'}") from error
    missing = [why for name, why in differences(facts, limits, own_processes) if name not in degraded]
    if missing:
        raise SandboxError("a new sandbox does not enforce its limits: " + "; ".join(missing))


def differences(facts: dict[str, Any], limits: Limits, own_processes: int) -> Iterator[tuple[str, str]]:
    """Yield the name of every limit that is not in effect, with a description of the fault."""
    cpus = facts["cpus"]
    swap = facts["swap"] == ["0"] or facts["memory_and_swap"] == facts["memory"]
    share = int(cpus[0]) / int(cpus[1]) if cpus and cpus[0] not in ("max", "-1") else None
    memory = facts["memory"]
    expected = {
        "memory_bytes": (memory, [str(limits.memory_bytes // _MEMORY_PAGE * _MEMORY_PAGE)]),
        "swap": (swap, True),
        "processes": (facts["processes"], [str(limits.processes + own_processes)]),
        "cpus": (share is not None and abs(share - limits.cpus) < 0.01, True),
        "open_files": (facts["files"], [limits.open_files] * 2),
        "core": (facts["core"], [0, 0]),
        "file_size": (facts["file_size"], [limits.disk_bytes] * 2),
        "capabilities": (facts["capabilities"], 0),
        "no_new_privs": (facts["no_new_privs"], "1"),
        "seccomp": (facts["seccomp"], "2"),
        "user": (0 in facts["uid"] + facts["gid"] + facts["groups"], False),
        "root_writable": (facts["root_writable"], False),
        "writable": (sorted({*facts["writable"]} - {*facts["folders"]}), []),
        "network": (set(facts["interfaces"]) <= {"lo"}, True),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            yield name, f"{name} is {found!r}, not {wanted!r}"
    for folder, size in facts["folders"].items():
        if size is None:
            yield "folders", f"{folder} is not there"
        elif not 0 < size <= limits.disk_bytes + _MEMORY_PAGE:
            yield "disk_bytes", f"{folder} holds {size} bytes, not {limits.disk_bytes}"
