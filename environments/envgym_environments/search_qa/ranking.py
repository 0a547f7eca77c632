"""Rank documents by the words that they share with a query."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from envgym.errors import DataError
from envgym.optional_packages import require
from envgym_environments.search_qa.world import Document

__all__ = ["Ranking", "WordRanking"]

_WORD = re.compile(r"\w+")
_TITLE_WEIGHT = 3
"""Times a title counts: a document about someone must outrank those that mention them."""


class Ranking(ABC):
    """Compares a query with every document of a corpus."""

    @abstractmethod
    def scores(self, query: str) -> NDArray[numpy.floating]:
        """Return each document's score, ``[documents]``; 0 and below is no match."""


class WordRanking(Ranking):
    """BM25 as in Lucene, through ``bm25s``.

    Raises:
        DataError: no document has a word in it.
        UserError: ``bm25s`` is not installed.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        bm25s = require("bm25s", "retriever = 'bm25'")
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        words = [_words(d.title) * _TITLE_WEIGHT + _words(d.text) for d in documents]
        if not any(words):
            raise DataError("the corpus holds no words")
        bm25 = bm25s.BM25()
        bm25.index(words, show_progress=False)
        self._documents = len(documents)
        self._words: dict[str, int] = bm25.vocab_dict
        self._scores, self._places = bm25.scores["data"], bm25.scores["indices"]
        self._bounds: list[int] = bm25.scores["indptr"].tolist()

    def scores(self, query: str) -> NDArray[numpy.floating]:
        """Return BM25 scores; zero for documents that share no word with ``query``."""
        found = numpy.zeros(self._documents, self._scores.dtype)
        # bm25s adds up its precomputed scores in the same way; its checks take several times as long.
        for number in [self._words[word] for word in _words(query) if word in self._words]:
            part = slice(self._bounds[number], self._bounds[number + 1])
            found[self._places[part]] += self._scores[part]
        return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
