"""Encode requests as the bytes that cross into a sandbox, and decode the files that come back.

Files cross as a list of names and contents, not as an archive, which could express links, owners and modes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence

from envgym_sandboxes.channel import RunnerReply
from envgym_sandboxes.inside import wire

__all__ = [
    "check_name",
    "check_written",
    "pack_argv",
    "pack_code",
    "pack_files",
    "pack_request",
    "unpack_file",
]

_MAX_PART_BYTES = 255
_MAX_NAME_BYTES = 1024
_MAX_DEPTH = 32
_MAX_FILES = 4096
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR}


def check_name(path: str) -> bytes:
    """Return ``path`` encoded if it is a plain relative name.

    Raises:
        ValueError: the path is empty, absolute, too long, too deep or holds ``..``, or a part of it begins with a
            dash or holds a control character or one that UTF-8 cannot express.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.startswith("-") for part in parts) or not path.isprintable():
        raise ValueError(f"file name {path!r:.100} must be relative, of plain parts: no '..', '-' or controls")
    name = path.encode("utf-8")
    longest = max(len(part.encode("utf-8")) for part in parts)
    if len(name) > _MAX_NAME_BYTES or longest > _MAX_PART_BYTES or len(parts) > _MAX_DEPTH:
        raise ValueError(
            f"file name {path!r:.100} is too long: at most {_MAX_NAME_BYTES} bytes, "
            f"{_MAX_PART_BYTES} a part, {_MAX_DEPTH} parts"
        )
    return name


def pack_code(code: str) -> bytes:
    """Return Python source as bytes; characters that UTF-8 cannot express become a syntax error of the program."""
    return code.encode("utf-8", "surrogatepass")


def pack_argv(argv: Sequence[str]) -> bytes:
    """Return a command as bytes.

    Raises:
        ValueError: the command is empty or holds a NUL.
    """
    if not argv or not argv[0] or any("\0" in argument for argument in argv):
        raise ValueError(f"argv must be non-empty strings without NUL, got {list(argv)!r:.200}")
    return "\0".join(argv).encode("utf-8", "surrogateescape")


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Return files as bytes.

    Raises:
        ValueError: a name is not plain, or there are too many.
    """
    if len(files) > _MAX_FILES:
        raise ValueError(f"{len(files)} files are too many to write at once: at most {_MAX_FILES}")
    pieces = []
    for path, content in files.items():
        name = check_name(path)
        pieces += [wire.ENTRY.pack(len(name), len(content)), name, content]
    return b"".join(pieces)


def pack_request(path: str, limit: int) -> bytes:
    """Return a request for a file as bytes.

    Raises:
        ValueError: the name is not plain.
    """
    return b"%d/%b" % (limit, check_name(path))


def check_written(reply: RunnerReply) -> None:
    """Check that the files were written.

    Raises:
        OSError: the program left no room, or a folder in the place of a file.
    """
    _raise_error(reply, "write")


def unpack_file(reply: RunnerReply, path: str, limit: int) -> bytes:
    """Return the content of the requested file.

    Raises:
        ValueError: the file is larger than ``limit`` bytes.
        FileNotFoundError: no regular file has that name, or the file has further names.
        OSError: the program made it unreadable.
    """
    if os.waitstatus_to_exitcode(reply.wait_status) == errno.EFBIG:
        raise ValueError(f"{path!r} is larger than {limit} bytes")
    if os.waitstatus_to_exitcode(reply.wait_status) in _MISSING:
        raise FileNotFoundError(f"there is no regular file {path!r} in the sandbox")
    _raise_error(reply, f"read {path!r}")
    return reply.stdout


def _raise_error(reply: RunnerReply, doing: str) -> None:
    code = os.waitstatus_to_exitcode(reply.wait_status)
    if code > 0:
        raise OSError(code, f"cannot {doing} in the sandbox: {os.strerror(code)}")
    if code < 0:
        raise OSError(errno.EIO, f"cannot {doing} in the sandbox: the operation was killed")
