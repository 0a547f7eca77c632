"""Problems from files: GSM8K, or any JSON lines with a question and an answer column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from envgym.errors import DataError
from envgym.records import Message, Split, Task
from envgym.tasks.files import load_split, row_id, text_of
from envgym.verifiers import check_gold

__all__ = ["GSM8K", "FileProblems"]

_COMPARISON = {"unit": str, "percent": bool, "rounded": bool}
"""Optional columns of a row, with their types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProblems:
    """Location of a file of problems, and the columns of its rows."""

    train_file: str
    held_out_file: str = ""
    question_column: str = "question"
    answer_column: str = "answer"
    answer_marker: str = ""
    """The answer is the text after the last occurrence; ``""``: the whole column."""

    def load(self, split: Split, system: Message) -> Sequence[Task]:
        """Read the tasks of a split. The columns ``unit``, ``percent`` and ``rounded`` set a row's answer rules.

        Raises:
            DataError: see ``load_split``; also a gold that cannot be read. The message names file and row.
        """

        def make(where: str, row: dict[str, Any], split: Split) -> Task:
            question = Message(role="user", content=text_of(where, row, self.question_column))
            return Task(
                id=row_id(where, split),
                split=split,
                messages=(system, question),
                reference=self._reference(where, row),
            )

        columns = (self.question_column, self.answer_column)
        return load_split(split, self.train_file, self.held_out_file, columns, make)

    def _reference(self, where: str, row: dict[str, Any]) -> dict[str, JsonValue]:
        options = _comparison(where, row)
        unit = options.get("unit")
        return {"answer": self._gold(where, row, unit if isinstance(unit, str) else None), **options}

    def _gold(self, where: str, row: dict[str, Any], unit: str | None) -> str:
        text = text_of(where, row, self.answer_column)
        if self.answer_marker:
            _, marker, text = text.rpartition(self.answer_marker)
            if not marker:
                raise DataError(f"{where}: no {self.answer_marker!r} in column {self.answer_column!r}")
        try:
            check_gold(text.strip(), unit=unit)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return text.strip()


def _comparison(where: str, row: dict[str, Any]) -> dict[str, str | bool]:
    """Return the row's options for ``verify_math``."""
    said = {name: row[name] for name in _COMPARISON if row.get(name) is not None}
    for name, value in said.items():
        if not isinstance(value, _COMPARISON[name]):
            raise DataError(f"{where}: column {name!r} must be {_COMPARISON[name].__name__}, got {value!r:.60}")
    return said


GSM8K = FileProblems(train_file="gsm8k_train.jsonl", held_out_file="gsm8k_test.jsonl", answer_marker="####")
"""Cobbe et al. 2021 (arXiv 2110.14168): 7,473 training and 1,319 test problems."""
