"""Cache on disk facts that take seconds to find out, for as long as they hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import platformdirs

from envgym.errors import UserError
from envgym.runs.durable import write_atomic

__all__ = ["cache_folder", "cached_on_disk", "fingerprint"]


def cache_folder() -> Path:
    """Return the user's cache folder for this project, creating it where it is missing."""
    return platformdirs.user_cache_path("envgym", appauthor=False, ensure_exists=True)


def fingerprint(files: Iterable[tuple[str, Path]], *words: str) -> str:
    """Return a digest of the files' paths, sizes and modification times, and of ``words``."""
    digest = hashlib.sha256("\0".join(words).encode())
    for name, path in files:
        facts = path.stat()
        digest.update(f"{name}\0{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_on_disk(name: str, mark: str, make: Callable[[], Any]) -> Any:
    """Return the value cached under ``name``, or call ``make`` and cache its value, when ``mark`` has changed.

    The cache is shared by all processes of this user.

    Args:
        name: name of the file, which holds one mark and its value.
        mark: digest of everything on which ``make`` depends.
        make: returns a JSON value.
    """
    path = cache_folder() / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["mark"] == mark:
            return stored["value"]
    value = make()
    with contextlib.suppress(OSError, UserError):
        write_atomic(path, json.dumps({"mark": mark, "value": value}))
    return value
