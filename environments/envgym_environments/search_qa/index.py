"""Search engine for short documents, by words, by meaning or by title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from envgym_environments.search_qa.embeddings import BUILTIN_MODEL, EmbeddingRanking
from envgym_environments.search_qa.ranking import Ranking, WordRanking
from envgym_environments.search_qa.world import Document

__all__ = ["Index", "Retriever"]

Retriever = Literal["bm25", "embeddings"]


class Index:
    """Finds documents by a query or by title.

    Args:
        documents: documents to search.
        retriever: measure for comparing queries with documents.
        embedding_model: see ``EmbeddingRanking``.

    Raises:
        DataError: no document holds a word.
        UserError: the model is not available here.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        retriever: Retriever = "bm25",
        embedding_model: str = BUILTIN_MODEL,
    ) -> None:
        self.documents = documents
        self._ranking: Ranking = (
            WordRanking(documents) if retriever == "bm25" else EmbeddingRanking(documents, embedding_model)
        )
        self._by_title: dict[str, list[Document]] = {}
        for document in documents:
            self._by_title.setdefault(document.title.strip().casefold(), []).append(document)

    def search(self, query: str, top_k: int) -> list[Document]:
        """Return the best ``top_k`` documents that match ``query``, best first; ties in corpus order."""
        scores = self._ranking.scores(query)
        hits = (scores > 0).nonzero()[0]
        best = hits[(-scores[hits]).argsort(kind="stable")[:top_k]].tolist()
        return [self.documents[i] for i in best]

    def by_title(self, title: str) -> list[Document]:
        """Return every document of that title, whatever its case, in corpus order."""
        return self._by_title.get(title.strip().casefold(), [])
