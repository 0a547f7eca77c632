"""The manifest of a checkpoint, by which damage is found before anything is loaded."""

from __future__ import annotations

import functools
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from envgym.errors import DataError
from envgym.records import SCHEMA
from envgym.runs.reading import read_json

__all__ = ["fault_of", "write_manifest"]

_MANIFEST = "manifest.json"
_BLOCK = 2**20
_UNREADABLE = (
    DataError,
    OSError,
    SafetensorError,
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _read_weights(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict.fromkeys(file.keys(), "")


_READERS: dict[str, Callable[[Path], Any]] = {
    "state.json": read_json,
    "tensors.pt": functools.partial(torch.load, weights_only=True, map_location="cpu", mmap=True),
    "model/config.json": read_json,
    "model/tokenizer.json": read_json,
}
"""Files of every checkpoint, and how to find out whether they can be read."""


def write_manifest(folder: Path) -> None:
    """Write down the size and the checksum of every file in ``folder``; it comes last, when all are there."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sums = {name: {"bytes": path.stat().st_size, "crc32": _crc(path)} for name, path in files.items()}
    (folder / _MANIFEST).write_text(json.dumps({"schema": SCHEMA, "files": sums}), encoding="utf-8")


def fault_of(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or ``""``."""
    if not (folder / _MANIFEST).is_file():
        return _unreadable(folder)
    try:
        files = read_json(folder / _MANIFEST)["files"]
        for name in (*_READERS, *files):
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != files[name]["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {files[name]['bytes']}"
            if _crc(path) != files[name]["crc32"]:
                return f"{name} has changed"
    except (DataError, OSError) as error:
        return f"{error!s:.200}"
    except (KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is not a manifest"
    return ""


def _unreadable(folder: Path) -> str:
    """Return what is wrong with a checkpoint of an older envgym, which has no manifest, or ``""``."""
    weights = {str(path.relative_to(folder)): _read_weights for path in (folder / "model").glob("*.safetensors")}
    for name, read in (_READERS | (weights or {"model/model.safetensors": _read_weights})).items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        try:
            if not isinstance(read(folder / name), dict):
                return f"{name} does not hold what it should"
        except _UNREADABLE as error:
            return f"{name} cannot be read ({error!s:.200})"
    return ""


def _crc(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return total
