"""What took seconds to find out, kept on disk for as long as it still holds."""

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
    """The user's folder for what can be made again; it exists."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "envgym"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint(files: Iterable[tuple[str, Path]], *words: str) -> str:
    """Changes when a file is added, removed or written: paths, sizes and times of change, and ``words``."""
    digest = hashlib.sha256("\0".join(words).encode())
    for name, path in files:
        facts = path.stat()
        digest.update(f"{name}\0{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_on_disk(name: str, mark: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returned when it was called last under ``name`` and ``mark``, by any process of this user.

    Args:
        name: names the file; one mark is kept of each.
        mark: changes with what ``make`` depends on.
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
