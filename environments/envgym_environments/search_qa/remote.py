"""A retriever behind HTTP, in the request and response shape of Search-R1's ``/retrieve`` (arXiv 2503.09516)."""

from __future__ import annotations

import pydantic

from envgym.errors import ToolError
from envgym.web.service import Answer, Refusal, Undecided, WebService
from envgym_environments.search_qa.world import Document

__all__ = ["RemoteRetriever"]


_PAUSE = 0.2
"""Seconds before the first retry."""


class _Contents(pydantic.BaseModel):
    contents: str


class _Hit(pydantic.BaseModel):
    document: _Contents
    score: float = 0.0


class _Answer(pydantic.BaseModel):
    result: list[list[_Hit]]


class RemoteRetriever:
    """Requests documents from a server.

    Args:
        url: address for posts of ``{"queries": [...], "topk": k, "return_scores": true}``.
        timeout: seconds for one request.

    Raises:
        UserError: ``url`` is not the address of a server.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._service = WebService(url, says="retriever", failure=ToolError, timeout=timeout, pause=_PAUSE)

    async def search(self, query: str, top_k: int) -> list[Document]:
        """Return the server's documents, best first.

        Raises:
            ToolError: the server is down or slow, refuses, or answers in another shape. Missing data, never a
                reward of 0.
        """
        request = {"queries": [query], "topk": top_k, "return_scores": True}
        try:
            hits = await self._service.post(request, _hits)
        except Refusal as refusal:
            raise self._service.failed(str(refusal)) from None
        return [_document(hit.document.contents) for hit in hits[:top_k]]

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._service.close()


def _hits(answer: Answer) -> list[_Hit]:
    answer.check()
    try:
        result = _Answer.model_validate(answer.json()).result
    except pydantic.ValidationError as error:
        raise Undecided(f"not the shape of /retrieve: {error.errors()[0]['msg']}") from None
    if len(result) != 1:
        raise Undecided(f"{len(result)} results for one query")
    return result[0]


def _document(contents: str) -> Document:
    """Split off the title, which Search-R1 writes in quotes on the first line."""
    title, _, text = contents.partition("\n")
    return Document(title=title.strip().strip('"'), text=text.strip())
