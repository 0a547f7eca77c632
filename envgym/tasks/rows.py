"""Rows of data: files of JSON, and data sets in the form of Hugging Face."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from envgym.errors import DataError
from envgym.plain_files import cut_line, open_plain, utf8
from envgym.redaction import quoted
from envgym.strict_json import parse_json
from envgym.tasks.hub_rows import HUB, hub_rows

__all__ = ["changed_at", "data_path", "read_rows"]

_MAX_ROW = 16 * 2**20
_MAX_LIST = 512 * 2**20
_MAX_LINES = 8 * 2**30
_MAX_ROWS = 20_000_000
"""Bytes and rows of a file of lines, unpacked: one that is short may unpack to one that hardly ends."""


def data_path(name: str) -> Path:
    """Find a data file: an existing path as given, or a name in the folder ``$ENVGYM_DATA``.

    Raises:
        DataError: there is no such file; the message lists the paths tried.
    """
    folder = os.environ.get("ENVGYM_DATA")
    tried = [Path(name), *([Path(folder) / name] if folder else [])]
    for path in tried:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # no valid file name
            if path.expanduser().is_file():
                return path.expanduser()
    places = ", ".join(quoted(str(p), 200) for p in tried)
    hint = "" if folder else "; ENVGYM_DATA, the folder of data files, is not set"
    raise DataError(f"no data file {quoted(name, 200)} (looked for {places}{hint})")


def read_rows(name: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file or a Hugging Face data set row by row.

    Args:
        name: a JSON lines file, or a ``.json`` file that holds a list, as ``data_path`` finds it, gzipped
            (``.gz``) or not; or ``hf:PATH@CONFIG#SPLIT``, where PATH is a folder (of ``save_to_disk``, or of data
            files) or a name on the hub, CONFIG may be left out, and SPLIT is ``train`` by default.
        columns: columns that every row must have.

    Yields:
        ``(where, row)``, where ``where`` names the file and the row for error messages. Rows count from 1; those
        of JSON lines are lines, blank ones counted and left out.

    Raises:
        DataError: the file is missing, not UTF-8 or too large, a row is not a JSON object, or it lacks one of
            ``columns``.
    """
    title, rows = hub_rows(name.removeprefix(HUB)) if name.startswith(HUB) else _file_rows(data_path(name))
    for number, row in rows:
        where = f"{title}, row {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        missing = [c for c in columns if c not in row]
        if missing:
            raise DataError(f"{where}: no column {missing[0]!r}; it has: {_names(row)}")
        yield where, row


def _names(row: dict[str, Any]) -> str:
    return ", ".join(row)[:300] or "none"


def _file_rows(path: Path) -> tuple[str, Iterator[tuple[int, Any]]]:
    read = _items if path.name.removesuffix(".gz").endswith(".json") else _lines
    return path.name, read(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked; what is wrong with it is told as a ``DataError``."""
    try:
        with open_plain(path) as file:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: cannot be read ({error})") from None
    except ValueError as error:
        raise DataError(f"{path.name}: {error}") from None


def _items(path: Path) -> Iterator[tuple[int, Any]]:
    with _opened(path) as file:
        raw = file.read(_MAX_LIST + 1)
        if len(raw) > _MAX_LIST:
            raise ValueError(f"is larger than {_MAX_LIST // 2**20} MiB; write one object a line, as .jsonl")
        text = utf8(raw)
    values = _decode(path.name, text)
    if not isinstance(values, list):
        raise DataError(
            f"{path.name}: expected a list of objects, got {type(values).__name__}; one a line is .jsonl"
        )
    yield from enumerate(values, 1)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    number = size = 0
    with _opened(path) as file:
        while True:
            number += 1
            line, cut = cut_line(file, _MAX_ROW)
            size += len(line)
            if not line:
                return
            where = f"{path.name}, row {number}"
            if cut:
                raise DataError(f"{where}: is longer than {_MAX_ROW // 2**20} MiB")
            if size > _MAX_LINES or number > _MAX_ROWS:
                raise DataError(
                    f"{where}: a file has at most {_MAX_ROWS:,} rows and {_MAX_LINES // 2**30} GiB; split it"
                )
            if line.strip():
                yield number, _decode(where, _decoded(where, line))


def _decoded(where: str, line: bytes) -> str:
    try:
        return utf8(line)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _decode(where: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from None


def changed_at(name: str) -> int:
    """Return the modification time of the file of ``read_rows(name)``, in nanoseconds; 0 for a data set.

    Raises:
        DataError: there is no such file.
    """
    return 0 if name.startswith(HUB) else data_path(name).stat().st_mtime_ns
