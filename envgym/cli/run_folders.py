"""The folder of a run as a command takes it: empty before, one process's, and gone if nothing was done."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from envgym.errors import UserError
from envgym.runs.folder import RunFolder

__all__ = ["check_new", "claimed", "removed_if_unused"]

_FOLDERS = ("trajectories", "checkpoints", "evaluations")
_FILES = tuple(f"{name}{ending}" for name in ("recipe.toml", "versions.json") for ending in ("", ".draft"))
_SHOWN = 3


def check_new(path: Path) -> None:
    """Check that a run may be made at ``path``: nothing is there, or an empty folder.

    Raises:
        UserError: says what is there, and what may be given instead.
    """
    try:
        if (path / "recipe.toml").exists():
            raise UserError(
                f"{path} already holds a run: continue it with envgym train --resume {shlex.quote(str(path))}, or "
                "name another folder with --out"
            )
        if path.is_dir():
            held = sorted(entry.name for entry in path.iterdir())
        elif path.exists() or path.is_symlink():
            raise UserError(f"--out {path}: that is a file; name a folder that is empty or does not exist")
        else:
            held = []
    except OSError as error:
        raise UserError(f"--out {path} cannot be used: {error.strerror}; name another folder") from None
    except ValueError as error:
        raise UserError(f"--out {str(path)!r} is no name of a folder: {error}") from None
    if held and not _unused(path):
        rest = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
        raise UserError(
            f"--out {path}: the folder holds {', '.join(held[:_SHOWN])}{rest}, which no run made; name one "
            "that is empty or does not exist"
        )


@contextlib.contextmanager
def claimed(folder: RunFolder) -> Iterator[None]:
    """Keep other processes from working in the folder until the end of this one, however it comes.

    Raises:
        UserError: another process works in it.
    """
    handle = os.open(folder.path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process works in {folder.path}: wait for its end or stop it, or begin a run in another "
                "folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def removed_if_unused(path: Path) -> Iterator[None]:
    """Remove a new folder again if the run is refused before it recorded anything."""
    try:
        yield
    except* UserError:
        with contextlib.suppress(OSError):
            if _unused(path):
                shutil.rmtree(path)
        raise


def _unused(path: Path) -> bool:
    """Return whether the folder holds nothing but what every run begins with."""
    return all(
        not any(entry.iterdir()) if entry.name in _FOLDERS and entry.is_dir() else entry.name in _FILES
        for entry in path.iterdir()
    )
