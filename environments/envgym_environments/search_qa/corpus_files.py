"""A corpus and questions from files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from envgym.errors import DataError
from envgym.records import Message, Split, Task
from envgym.tasks.files import load_split, row_id, text_of
from envgym.tasks.rows import changed_at, read_rows
from envgym_environments.search_qa.index import Index, Retriever
from envgym_environments.search_qa.world import Document

__all__ = ["file_index", "file_questions"]


def file_index(name: str, retriever: Retriever, embedding_model: str) -> Index:
    """Return the index of a JSON-lines corpus (``id``, ``title``, ``text``), cached while the file is unchanged.

    Raises:
        DataError: the file is missing, malformed or empty, or an id occurs twice.
    """
    return _index(name, changed_at(name), retriever, embedding_model)


@functools.lru_cache(maxsize=4)
def _index(name: str, changed: int, retriever: Retriever, embedding_model: str) -> Index:
    """Build the index; ``changed``, the file's time of change, renews the cached entry."""
    seen: dict[str, str] = {}
    documents: list[Document] = []
    for where, row in read_rows(name, ("id", "title", "text")):
        number = text_of(where, row, "id")
        if number in seen:
            raise DataError(f"{where}: the id {number!r} is taken by {seen[number]}")
        seen[number] = where
        documents.append(Document(title=text_of(where, row, "title"), text=text_of(where, row, "text")))
    if not documents:
        raise DataError(f"{name}: the corpus is empty")
    return Index(documents, retriever, embedding_model)


def file_questions(split: Split, train_file: str, held_out_file: str, system: Message) -> Sequence[Task]:
    """Return the questions of a split, from rows with the columns ``question`` and ``answers`` (or one text).

    Raises:
        DataError: see ``load_split``; also for answers that are not texts or are blank.
    """

    def make(where: str, row: dict[str, Any], split: Split) -> Task:
        answers = row["answers"] if isinstance(row["answers"], list) else [row["answers"]]
        if not answers:
            raise DataError(f"{where}: column 'answers' is an empty list")
        return Task(
            id=row_id(where, split),
            split=split,
            messages=(system, Message(role="user", content=text_of(where, row, "question"))),
            reference={"answers": [text_of(where, {"answers": a}, "answers") for a in answers]},
        )

    return load_split(split, train_file, held_out_file, ("question", "answers"), make)
