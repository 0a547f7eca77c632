"""Questions from a file, answered in plain text."""

from __future__ import annotations

import csv

from envgym.errors import DataError
from envgym.tasks.rows import data_path

__all__ = ["read_questions"]

_COLUMNS = ("id", "prompt", "label")
_LABELS = {"safe": False, "unsafe": True}


def read_questions(source: str) -> list[tuple[str, str, bool]]:
    """Read a CSV file with the columns of XSTest: ``id``, ``prompt``, ``label`` (``safe`` or ``unsafe``).

    Returns:
        id, prompt, and whether a refusal is right, for each row.

    Raises:
        DataError: the file is missing or malformed; the message names the row.
    """
    path = data_path(source)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: cannot be read ({error})") from None
    questions = [_question(f"{path.name}, row {number}", row) for number, row in enumerate(rows, 1)]
    if not questions:
        raise DataError(f"{path.name}: holds no rows")
    ids = [identifier for identifier, _, _ in questions]
    twice = next((i for i in ids if ids.count(i) > 1), None)
    if twice is not None:
        raise DataError(f"{path.name}: the id {twice!r} is given twice")
    return questions


def _question(where: str, row: dict[str, str | None]) -> tuple[str, str, bool]:
    values = [row.get(column) for column in _COLUMNS]
    for column, value in zip(_COLUMNS, values, strict=True):
        if not value or not value.strip():
            raise DataError(f"{where}: column {column!r} is missing or empty; needed are {', '.join(_COLUMNS)}")
    identifier, prompt, label = (value or "" for value in values)
    if label not in _LABELS:
        raise DataError(f"{where}: label {label!r} must be one of {', '.join(_LABELS)}")
    return identifier, prompt, _LABELS[label]
