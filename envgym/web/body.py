"""Read the body of an answer, of which neither the size nor the encoding is trusted."""

from __future__ import annotations

import zlib

import httpx

__all__ = ["MAX_BODY", "CutBody", "LargeBody", "read_body"]

MAX_BODY = 8 * 2**20
"""Largest body that is read, in bytes, sent and decoded alike."""
_PLAIN = ("", "identity")
_DEFLATED = ("gzip", "x-gzip", "deflate")


class LargeBody(Exception):
    """The body is larger than ``MAX_BODY``."""


class CutBody(Exception):
    """The body ends too early, or cannot be decoded."""


async def read_body(response: httpx.Response) -> str:
    """Return the body as text.

    Nothing is asked to be compressed, yet some gateways compress all that they send. One layer of gzip or deflate
    is undone; a second one, with which a few bytes become gigabytes, is refused as are all others.

    Raises:
        LargeBody: it is too large.
        CutBody: it is cut, or in another encoding.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in (*_PLAIN, *_DEFLATED):
        raise CutBody(f"the answer is encoded as {encoding!r:.60}, though nothing was asked to be")
    inflate = zlib.decompressobj(wbits=47) if encoding in _DEFLATED else None
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece if inflate is None else _inflated(inflate, piece, MAX_BODY + 1 - len(content))
        if len(content) > MAX_BODY:
            raise LargeBody(f"the answer is larger than {MAX_BODY} bytes")
    if inflate is not None and not inflate.eof:
        raise CutBody("the compressed answer is cut")
    return content.decode("utf-8", "replace")


def _inflated(inflate: zlib._Decompress, piece: bytes, room: int) -> bytes:
    try:
        return inflate.decompress(piece, room)
    except zlib.error as error:
        raise CutBody(f"the compressed answer cannot be read: {error}") from None
