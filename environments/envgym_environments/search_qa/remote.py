"""A retriever behind HTTP, in the request and response shape of Search-R1's ``/retrieve`` (arXiv 2503.09516)."""

from __future__ import annotations

import httpx
import pydantic

from envgym.errors import ToolError
from envgym_environments.search_qa.world import Document

__all__ = ["RemoteRetriever"]


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
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=timeout)

    async def search(self, query: str, top_k: int) -> list[Document]:
        """Return the server's documents, best first.

        Raises:
            ToolError: the server is down or slow, refuses, or answers in another shape. Missing data, never a
                reward of 0.
        """
        request = {"queries": [query], "topk": top_k, "return_scores": True}
        try:
            response = await self._client.post(self._url, json=request)
            response.raise_for_status()
            answer = _Answer.model_validate_json(response.content)
        except httpx.HTTPError as error:
            raise ToolError(f"retriever {self._url}: {type(error).__name__}: {error}") from error
        except pydantic.ValidationError as error:
            raise ToolError(
                f"retriever {self._url}: not the shape of /retrieve: {error.errors()[0]['msg']}"
            ) from None
        if len(answer.result) != 1:
            raise ToolError(f"retriever {self._url}: {len(answer.result)} results for one query")
        return [_document(hit.document.contents) for hit in answer.result[0][:top_k]]

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()


def _document(contents: str) -> Document:
    """Split off the title, which Search-R1 writes in quotes on the first line."""
    title, _, text = contents.partition("\n")
    return Document(title=title.strip().strip('"'), text=text.strip())
