"""Tasks from files of rows: one file per split, or a single one that is split by problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from envgym.errors import DataError
from envgym.records import Split, Task, problem_key
from envgym.tasks.procedural import split_of
from envgym.tasks.rows import read_rows

__all__ = ["load_split", "row_id", "text_of"]

MakeTask = Callable[[str, dict[str, Any], Split], Task]
"""Makes a task from ``(where, row, split)``; ``where`` names the file and the row for error messages."""


def load_split(
    split: Split, train_file: str, held_out_file: str, columns: Sequence[str], make: MakeTask
) -> list[Task]:
    """Read the tasks of one split.

    Args:
        split: the split to return.
        train_file: rows to train on; all rows if there is no ``held_out_file``.
        held_out_file: rows to evaluate on; ``""`` holds out one row of ``train_file`` in five.
        columns: columns that every row must have.
        make: turns a row into a task.

    Raises:
        DataError: a file is missing, a row is malformed, a question is in both files, or the split is empty.
    """

    def read(name: str) -> list[tuple[str, Task]]:
        return [(where, make(where, row, split)) for where, row in read_rows(name, columns)]

    if not held_out_file:
        tasks = [task for _, task in read(train_file) if split_of(task) == split]
    elif split == "held_out":
        tasks = [task for _, task in read(held_out_file)]
    else:
        barred = {problem_key(task): where for where, task in read(held_out_file)}
        tasks = []
        for where, task in read(train_file):
            if twin := barred.get(problem_key(task)):
                raise DataError(f"{where}: the same question is held out as {twin}; remove one of them")
            tasks.append(task)
    if not tasks:
        raise DataError(f"{train_file}: no {split} task")
    return tasks


def row_id(where: str, split: Split) -> str:
    """Return a task id from split, file and row, because the two files of ``load_split`` may share a name."""
    return f"{split}/{where.replace(', row ', '/')}"


def text_of(where: str, row: dict[str, Any], column: str) -> str:
    """Return the text or number in a column, as text without surrounding space.

    Raises:
        DataError: the column holds something else, or is blank.
    """
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f"{where}: column {column!r} must hold text or a number, got {value!r:.60}")
    return str(value).strip()
