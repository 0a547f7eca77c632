"""Cache on disk for results that take seconds to compute, kept while their inputs are unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from envgym.runs.folder import write_atomic

__all__ = ["cache_folder", "cached_on_disk", "fingerprint"]


def cache_folder() -> Path:
    """Return the user's cache folder, after making it if needed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "envgym"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint(files: Iterable[tuple[str, Path]], *words: str) -> str:
    """Return a digest of files' names, paths, sizes and times of change, and of ``words``."""
    digest = hashlib.sha256("\0".join(words).encode())
    for name, path in files:
        facts = path.stat()
        digest.update(f"{name}\0{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_on_disk(name: str, mark: str, make: Callable[[], Any]) -> Any:
    """Return the value that any process of this user stored under ``name`` and ``mark``, else make and store it.

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
    with contextlib.suppress(OSError):
        write_atomic(path, json.dumps({"mark": mark, "value": value}))
    return value
