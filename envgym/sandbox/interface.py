"""Sandboxes run untrusted code: the interface that every backend implements.

A backend opens sandboxes; a sandbox executes programs and holds files until it is closed. A program's own failure
is its outcome and is returned as a ``Status``; only a failure of the sandbox raises ``SandboxError``.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, NoReturn, Self

from envgym.plugins.base import Plugin

__all__ = ["Backend", "ExecResult", "Limits", "Sandbox", "Status"]


class Status(enum.StrEnum):
    """End of an execution. Every value is the program's doing."""

    OK = "ok"
    NONZERO = "nonzero"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    DISK_FULL = "disk_full"
    PIDS_LIMIT = "pids_limit"
    BROKE_SANDBOX = "broke_sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resources of one sandbox. A backend that cannot enforce one of these limits refuses to open."""

    wall_seconds: float = 10.0
    """Deadline of each execution, in seconds."""
    total_seconds: float = 600.0
    """Lifetime of the sandbox from ``open`` on, in seconds; it destroys itself afterwards."""
    memory_bytes: int = 256 * 2**20
    """Memory of all its processes and its temporary files together, in bytes; there is no swap."""
    disk_bytes: int = 32 * 2**20
    """Size of each writable folder, in bytes."""
    output_bytes: int = 2**20
    """Bytes kept per stream; longer output is cut in the middle and the status is ``OUTPUT_LIMIT``."""
    processes: int = 64
    """Processes and threads alive at once."""
    open_files: int = 256
    """File descriptors per process."""
    cpus: float = 1.0
    """CPU cores."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"limit {name} must be positive, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """Result of one execution."""

    status: Status
    exit_code: int | None
    """``None`` if a signal ended the program."""
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    queue_seconds: float = 0.0
    """Time spent waiting for a free slot, in seconds; not counted against the deadline."""
    run_seconds: float = 0.0

    @property
    def text(self) -> str:
        """Standard output, decoded with replacement."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """Standard error, decoded with replacement."""
        return self.stderr.decode("utf-8", "replace")


class Sandbox(abc.ABC):
    """One isolated place with its own files and processes. Use as an async context manager."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an open sandbox can be neither copied nor pickled")

    @abc.abstractmethod
    async def run_python(self, code: str, *, stdin: bytes = b"", wall_seconds: float | None = None) -> ExecResult:
        """Run ``code`` as a fresh ``__main__`` in the work folder; this is the fast path.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """

    @abc.abstractmethod
    async def run_cell(self, code: str, *, wall_seconds: float | None = None) -> ExecResult:
        """Run ``code`` in the sandbox's Python session: names survive from cell to cell, as in a notebook.

        The value of a last expression is printed. A cell that raises is ``NONZERO`` and the session goes on; one
        that ends the process, runs late or floods ends the session, and so does ``run_python`` or ``exec``. The
        next cell then starts a new one. Standard input is empty.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """

    @abc.abstractmethod
    async def exec(
        self, argv: Sequence[str], *, stdin: bytes = b"", wall_seconds: float | None = None
    ) -> ExecResult:
        """Run ``argv`` in the work folder.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """

    @abc.abstractmethod
    async def write(self, files: Mapping[str, bytes]) -> None:
        """Write files, by path relative to the work folder.

        Raises:
            ValueError: a path is absolute, climbs out, or is not a plain name.
            OSError: the program left no room for them, or broke the sandbox: its own fault.
            SandboxError: the sandbox failed.
        """

    @abc.abstractmethod
    async def read(self, path: str, *, limit: int = 2**20) -> bytes:
        """Read one regular file, by path relative to the work folder; links are not followed.

        Raises:
            ValueError: the path is not allowed, or the file is larger than ``limit`` bytes.
            FileNotFoundError: there is no regular file of that name.
            OSError: the program made it unreadable, or broke the sandbox: its own fault.
            SandboxError: the sandbox failed.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """End every process and remove everything. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Backend(Plugin, abc.ABC):
    """Opens sandboxes of one technology, and owns their shared resources (a warm pool, a client)."""

    isolated: ClassVar[bool] = True
    """True if hostile programs are contained. ``auto`` never picks a backend that is not isolated."""
    rank: ClassVar[int] = 0
    """``auto`` tries the isolating backends in descending order of rank, and equal ranks by name."""

    @classmethod
    @abc.abstractmethod
    def unavailable(cls) -> str | None:
        """Return the reason why this machine cannot run the backend, with a remedy, or ``None`` if it can."""

    @classmethod
    def clean(cls) -> int:
        """Remove the sandboxes that dead processes left on this machine, and return their number."""
        return 0

    async def prepare(self) -> str:
        """Prepare the sandboxes' shared parts, e.g. an image, and return its name; ``open`` does so on demand.

        Raises:
            UserError: this machine or the backend's settings do not allow it; the message names a remedy.
            SandboxError: the preparation failed.
        """
        return ""

    @abc.abstractmethod
    async def open(self, limits: Limits) -> Sandbox:
        """Open a sandbox with ``limits`` in effect.

        Raises:
            SandboxError: no sandbox could be started, or a limit could not be put in effect.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Close every sandbox and free the shared resources. Safe to call twice."""
