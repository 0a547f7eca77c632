"""Ranking of documents by the words that they share with a query."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from envgym.errors import DataError
from envgym_environments.search_qa.world import Document

__all__ = ["Ranking", "WordRanking"]

_WORD = re.compile(r"\w+")
_TITLE_WEIGHT = 3
"""Number of times that a title counts: a document about a person must outrank those that mention the person."""


class Ranking(ABC):
    """Compares a query with every document of a corpus."""

    @abstractmethod
    def scores(self, query: str) -> NDArray[numpy.floating]:
        """Return the score of each document, ``[documents]``; 0 and below is no match."""


class WordRanking(Ranking):
    """BM25 as in Lucene, through ``bm25s``.

    Raises:
        DataError: no document holds a word.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)
        words = [_words(d.title) * _TITLE_WEIGHT + _words(d.text) for d in documents]
        if not any(words):
            raise DataError("the corpus holds no words")
        self._none = numpy.zeros(len(documents))
        self._bm25 = bm25s.BM25()
        self._bm25.index(words, show_progress=False)

    def scores(self, query: str) -> NDArray[numpy.floating]:
        """Return BM25 scores, 0 for documents that share no word with ``query``."""
        words = _words(query)
        found: NDArray[numpy.floating] = self._bm25.get_scores(words) if words else self._none
        return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
