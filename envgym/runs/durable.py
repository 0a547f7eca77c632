"""Writes that survive a power cut, and say what happened when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from envgym.errors import UserError

__all__ = ["explain_full_disk", "replace_durably", "sync_folder", "sync_tree", "write_atomic"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomic(path: Path, text: str) -> None:
    """Write a file atomically: a reader never sees half of it, not even after a power cut.

    Raises:
        UserError: it could not be written; the file that was there is intact.
    """
    draft = path.with_name(path.name + ".draft")
    with explain_full_disk(path):
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            replace_durably(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def replace_durably(draft: Path, final: Path) -> None:
    """Give a file or folder that is on disk its final name, and put the name on disk, too."""
    draft.replace(final)
    sync_folder(final.parent)


def sync_tree(folder: Path) -> None:
    """Put every file in ``folder``, at any depth, and every name on disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        sync_folder(path)


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a ``UserError`` that says how to go on with the run, if any."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(_existing(path)).free / 2**20
            run = next((folder for folder in path.parents if (folder / "recipe.toml").is_file()), None)
            again = f"continue with envgym train --resume {run}" if run else "try again"
            first = "make room" if error.errno in _FULL or error.errno is None else "mend that"
            raise UserError(
                f"{path} could not be written: {error.strerror or error} ({free:,.1f} MiB free there). What was "
                f"written before is intact: {first}, then {again}"
            ) from error
        raise


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def sync_folder(folder: Path) -> None:
    """Put the names of the files in ``folder`` on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
