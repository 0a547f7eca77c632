"""A BM25 index over short documents."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy

from envgym.errors import DataError
from envgym_environments.search_qa.world import Document

__all__ = ["Index"]

_WORD = re.compile(r"\w+")
_TITLE_WEIGHT = 3
"""How often a title counts: a document about someone must outrank those that mention them."""


class Index:
    """Finds documents by words (BM25 as in Lucene, through ``bm25s``) or by title.

    Args:
        documents: what to search.

    Raises:
        DataError: no document has a word in it.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self.documents = documents
        self._by_title: dict[str, list[Document]] = {}
        for document in documents:
            self._by_title.setdefault(document.title.strip().casefold(), []).append(document)
        words = [_words(d.title) * _TITLE_WEIGHT + _words(d.text) for d in documents]
        if not any(words):
            raise DataError("the corpus holds no words")
        self._bm25 = bm25s.BM25()
        self._bm25.index(words, show_progress=False)

    def search(self, query: str, top_k: int) -> list[Document]:
        """The best ``top_k`` documents that share a word with ``query``, best first; ties in corpus order."""
        words = _words(query)
        if not words:
            return []
        scores = self._bm25.get_scores(words)
        hits = numpy.flatnonzero(scores > 0)
        best = hits[numpy.argsort(-scores[hits], kind="stable")[:top_k]]
        return [self.documents[i] for i in best]

    def by_title(self, title: str) -> list[Document]:
        """Every document of that title, whatever its case, in corpus order."""
        return self._by_title.get(title.strip().casefold(), [])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
