"""File operations, done by a forked child that has only the program's own rights."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import NoReturn

from envgym_sandboxes.inside.wire import ENTRY

__all__ = ["answer", "empty", "get", "put"]


def descend(parts: list[bytes], create: bool) -> int:
    """Open the folder of a path part by part, so that the kernel follows no link on the way."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
        below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        os.close(folder)
        folder = below
    return folder


def put(body: bytes) -> None:
    """Write files; replace files and links of the same names, and follow no link."""
    at = 0
    while at < len(body):
        name_size, size = ENTRY.unpack_from(body, at)
        at += ENTRY.size
        *parents, name = body[at : at + name_size].split(b"/")
        at += name_size
        folder = descend(parents, create=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        content = memoryview(body)[at : at + size]
        while content:
            content = content[os.write(target, content) :]
        os.close(target)
        os.close(folder)
        at += size


def get(body: bytes) -> None:
    """Write a regular file to standard output if it has a single name and is within the request's limit."""
    limit, *parts = body.split(b"/")
    folder = descend(parts[:-1], create=False)
    target = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    about = os.fstat(target)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        raise OSError(errno.ELOOP, "not a plain file")
    if about.st_size > int(limit):
        raise OSError(errno.EFBIG, "too large")
    while part := os.read(target, 65536):
        while part:
            part = part[os.write(1, part) :]


def empty(folder: str) -> None:
    """Remove everything in a folder. Subfolders move to the top first, so depth costs nothing."""
    serial = 0
    while names := os.listdir(folder):
        for name in names:
            path = os.path.join(folder, name)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for below in os.scandir(path):
                if below.is_dir(follow_symlinks=False):
                    os.chmod(below.path, 0o700)
                    serial += 1
                    os.rename(below.path, os.path.join(folder, f".envgym-{os.getpid()}-{serial}"))
                else:
                    os.unlink(below.path)
            os.rmdir(path)


def answer(action: Callable[[bytes], None], body: bytes) -> NoReturn:
    """Run a file operation and exit with its outcome: 0, or the errno."""
    try:
        action(body)
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    os._exit(0)
