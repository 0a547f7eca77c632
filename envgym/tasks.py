"""Where tasks come from: procedural generators with disjoint splits, and files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from envgym.data import Split, Task, content_hash
from envgym.errors import DataError, UnknownNameError
from envgym.parsing import parse_json
from envgym.seeding import derive_rng

__all__ = ["ProceduralTasks", "check_split", "data_path", "read_rows", "split_of", "stable_id"]

SPLITS: tuple[Split, ...] = ("train", "held_out")
_MAX_REDRAWS = 2000
_HELD_OUT_SHARE = 5  # one in five of all possible problems is held out


def check_split(split: str) -> Split:
    """Return ``split`` if it is one.

    Raises:
        UnknownNameError: it is not; the message lists the splits.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    return split


class ProceduralTasks(Sequence[Task]):
    """``size`` tasks, made on demand by a seeded generator.

    A task belongs to the split that the hash of its *content* says, so the splits are disjoint whatever the
    seeds are: a problem that training can draw is never held out.

    Args:
        generate: makes one task from a generator; it must set the split it is given.
        split: which side of the hash to keep.
        size: how many tasks the sequence holds.
        seed: names the sequence.
    """

    def __init__(
        self, generate: Callable[[random.Random, Split], Task], split: Split, size: int, seed: int = 0
    ) -> None:
        self._generate = generate
        self._split = split
        self._size = size
        self._seed = seed

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(f"task {index} of {self._size}")
        rng = derive_rng("task", self._seed, self._split, index % self._size)
        for _ in range(_MAX_REDRAWS):
            task = self._generate(rng, self._split)
            if split_of(task) == self._split:
                return task
        raise DataError(f"no {self._split} task in {_MAX_REDRAWS} draws: the generator makes too few problems")


def split_of(task: Task) -> Split:
    """The split that the task's content belongs to: one problem in five is held out."""
    return "held_out" if int(content_hash(task)[:8], 16) % _HELD_OUT_SHARE == 0 else "train"


def data_path(name: str) -> Path:
    """Find a data file: an existing path as given, or a name in the folder ``$ENVGYM_DATA``.

    Raises:
        DataError: there is no such file; the message says where it was looked for.
    """
    folder = os.environ.get("ENVGYM_DATA")
    tried = [Path(name), *([Path(folder) / name] if folder else [])]
    for path in tried:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # not even the name of a file
            if path.expanduser().is_file():
                return path.expanduser()
    places = ", ".join(f"{p!s:.200}" for p in tried)
    hint = "" if folder else "; ENVGYM_DATA, the folder of data files, is not set"
    raise DataError(f"no data file {name!r:.200} (looked for {places}{hint})")


def read_rows(name: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a JSON lines file, or a ``.json`` file that holds a list, row by row; either may be gzipped (``.gz``).

    Yields:
        ``(where, row)``, where ``where`` names the file and the row for error messages. Rows count from 1; those
        of JSON lines are lines, blank ones counted and left out.

    Raises:
        DataError: the file is missing or not UTF-8, a row is not a JSON object, or it lacks one of ``columns``.
    """
    path = data_path(name)
    read = _items if path.name.removesuffix(".gz").endswith(".json") else _lines
    for number, row in read(path.name, _text(path)):
        where = f"{path.name}, row {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        missing = [c for c in columns if c not in row]
        if missing:
            raise DataError(f"{where}: no column {missing[0]!r}; it has: {', '.join(row) or 'none'}")
        yield where, row


def _text(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path.name}: cannot be read ({error})") from None


def _items(name: str, text: str) -> Iterator[tuple[int, Any]]:
    values = _decode(name, text)
    if not isinstance(values, list):
        raise DataError(f"{name}: expected a list of objects, got {type(values).__name__}; one a line is .jsonl")
    yield from enumerate(values, 1)


def _lines(name: str, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _decode(f"{name}, row {number}", line)


def _decode(where: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from None


def stable_id(*parts: str) -> str:
    """A short id that depends on the parts alone."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:12]
