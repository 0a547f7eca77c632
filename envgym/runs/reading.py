"""The one way to read a run's files: what cannot be read is told by file and row, skipped and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pydantic

from envgym.errors import DataError
from envgym.plain_files import cut_line, open_plain, read_text, utf8
from envgym.records import check_schema
from envgym.strict_json import parse_json
from envgym.terminal import shown

__all__ = ["Damage", "parse_record", "read_json", "read_rows", "read_shown"]

T = TypeVar("T")
_MAX_FILE = 512 * 2**20
_MAX_SHOWN = 2**20
_MAX_ROW = 64 * 2**20
_REASON = 200


class Damage:
    """What could not be read of one run, by file."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._faults: dict[Path, list[str]] = {}

    def forget(self, path: Path) -> None:
        """Begin a file anew, as what was wrong with it may be mended."""
        self._faults.pop(path, None)

    def note(self, path: Path, reason: object, row: int = 0) -> None:
        """Note a row, or the whole file, that is skipped."""
        place = f"row {row}: " if row else ""
        self._faults.setdefault(path, []).append(place + shown(str(reason))[:_REASON])

    def lines(self) -> list[str]:
        """Return a line for each file: what is wrong with it first, and how many of its rows were skipped."""
        return [self._line(path, faults) for path, faults in self._faults.items()]

    def _line(self, path: Path, faults: list[str]) -> str:
        name = path.relative_to(self._run) if path.is_relative_to(self._run) else path
        first = faults[0]
        if not first.startswith("row "):
            return shown(f"{name} was skipped: it {first}")
        many = f"{len(faults)} rows of {name} were skipped; the first, {first}"
        return shown(many if len(faults) > 1 else f"1 row of {name} was skipped, {first}")


def read_json(path: Path, shape: type[pydantic.BaseModel] | None = None) -> dict[str, Any]:
    """Read a JSON object that a run wrote; check its schema version and drop it.

    Args:
        path: the file.
        shape: what the object must hold; it may hold more.

    Raises:
        DataError: it cannot be read, or a newer envgym wrote it; the file is named.
    """
    try:
        return parse_record(read_text(path, _MAX_FILE), shape)
    except FileNotFoundError:
        raise DataError(f"{path}: cannot be read (it is missing)") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({shown(str(error))[:_REASON]})") from None


def parse_record(text: str, shape: type[pydantic.BaseModel] | None = None) -> dict[str, Any]:
    """Decode a JSON object of a run's, without its schema version.

    Raises:
        ValueError: it is something else, does not have the shape, or a newer envgym wrote it.
    """
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"holds {'null' if values is None else type(values).__name__} in the place of an object")
    check_schema(values)
    values.pop("schema", None)
    if shape is not None:
        try:
            shape.model_validate(values)
        except pydantic.ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{place:.100}: {fault['msg']}".removeprefix(": ")) from None
    return values


def read_rows(path: Path, decode: Callable[[str], T], damage: Damage) -> Iterator[T]:
    """Yield the rows of a JSON lines file, none if there is no file; note those that cannot be read.

    A last row without an end is one that a crash cut short, whatever it holds.
    """
    damage.forget(path)
    try:
        file = open_plain(path)
    except FileNotFoundError:
        return
    except ValueError as error:
        damage.note(path, error)
        return
    with file:
        for number, (line, cut) in enumerate(_lines_of(file, path, damage), 1):
            try:
                if cut:
                    raise ValueError(f"is longer than {_MAX_ROW // 2**20} MiB")
                if not line.endswith(b"\n"):
                    raise ValueError("is cut short")
                row = decode(utf8(line))
            except ValueError as error:
                damage.note(path, error, number)
            else:
                yield row


def _lines_of(file: BinaryIO, path: Path, damage: Damage) -> Iterator[tuple[bytes, bool]]:
    try:
        line, cut = cut_line(file, _MAX_ROW)
        while line:
            yield line, cut
            while cut:  # the rest of a row that is too long
                _, cut = cut_line(file, _MAX_ROW)
            line, cut = cut_line(file, _MAX_ROW)
    except OSError as error:
        damage.note(path, f"cannot be read ({error.strerror})")


def read_shown(path: Path, damage: Damage) -> str:
    """Return a text file of a run as it may be shown, or what is wrong with it, which is noted."""
    damage.forget(path)
    try:
        return shown(read_text(path, _MAX_SHOWN))
    except FileNotFoundError:
        reason = "is missing"
    except ValueError as error:
        reason = str(error)
    damage.note(path, reason)
    return f"({path.name} {reason})"
