"""Keep keys out of text that leaves the process: messages, logs, records, saved recipes, reports."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["MARK", "quoted", "redacted", "redacted_values", "without_known_keys"]

MARK = "[key]"
"""Stands where a key stood."""

_SHORTEST = 6
"""Shorter values of variables, such as ``EMPTY`` or ``1``, are no secrets, and are found in any text."""
_HELD_BY = re.compile(r"(?i)(?:^|_)(?:api_?key|token|secret|credentials?)$|(?:_key|password|passwd|_pwd)$")
_SECRET = (
    r"(?:[\w.%-]{0,64}?(?:api|access|auth|secret|private|subscription|license)[-_.]?key"
    r"|(?:[\w.%-]{0,64}?(?:api|access|auth|bearer|refresh|session|security|id|hf|hub|github|gitlab|bot)[-_.]?)?token"
    r"|[\w.%-]{0,64}?(?:secret|password|passwd|passphrase|credentials?|signature)"
    r"|(?:proxy-)?authorization|pwd)"
)
"""Names of settings, headers and JSON keys that hold a secret. ``eos_token`` and ``max_tokens`` are none."""
_IN_QUERY = (
    rf"(?:{_SECRET}|[\w.%-]{{0,64}}?(?:key|token|accesskeyid)|(?:[\w.%-]{{0,64}}?[-_.])?(?:sig|auth|code|jwt))"
)
_NAMED = re.compile(rf"(?i)(?<![\w.%-]){_SECRET}\Z")
_VALUE = r"(?!(?:bearer|basic)\b|\[key\])[^\s\"'\\,;&(){}<>\[\]]{4,}"
_DRAWN = r"[\w.~+/=%-]"
_FORMS = [
    # The address of a server: what stands before the host, in whole, as some put a key in the place
    # of the name. A path made of it has one slash.
    (re.compile(r"(:/{1,2})[^\s/?#@\"'<>]{1,512}(?:@[^\s/?#@\"'<>]{1,512}){0,8}@"), rf"\1{MARK}@"),
    # A password with a slash or a question mark in it, which is not read as one; a port is none.
    (re.compile(r"(:/{1,2})[^\s/?#@:\"'<>]{1,128}:(?!\d{1,5}(?:[/?#]|$))[^\s@\"'<>]{1,512}@"), rf"\1{MARK}@"),
    (re.compile(rf"(?i)([?&;#]{_IN_QUERY}=)[^\s&;#\"'<>\\]+"), rf"\1{MARK}"),
    # In a header whatever follows; elsewhere what looks drawn, as "Bearer authentication" is prose.
    (re.compile(rf"(?i)(authorization\W{{1,6}}(?:bearer|basic|token)\s+){_DRAWN}+"), rf"\1{MARK}"),
    (
        re.compile(
            rf"(?i)\b((?:bearer|basic)(?:\s+|%20|\+))(?={_DRAWN}{{0,64}}[\d=]|{_DRAWN}{{20}}){_DRAWN}{{6,}}"
        ),
        rf"\1{MARK}",
    ),
    # A setting or a member of an object: api_key="…", "token": "…", and the same inside a quoted text.
    (
        re.compile(
            rf"(?i)((?<![\w.%-]){_SECRET}\\?[\"']?\s{{0,3}}[=:]\s{{0,3}})(\\?[\"'])(?:(?!\2)(?:\\.|[^\\\n]))+"
        ),
        rf"\1\2{MARK}",
    ),
    # Not quoted, as in a shell or a header; after a colon, a mere "password: …" may be prose.
    (re.compile(rf"(?i)((?<![\w.%-]){_SECRET}=){_VALUE}"), rf"\1{MARK}"),
    (
        re.compile(rf"(?i)(\b(?:x-)?(?:api-key|[\w-]{{0,32}}auth(?:orization|-token|-key)):\s?){_VALUE}"),
        rf"\1{MARK}",
    ),
    # Keys of well-known services by their form, wherever they stand.
    (
        re.compile(
            r"(?<![\w-])(?:sk-[\w-]{16,}|(?:hf|gsk|r8)_\w{16,}|gh[opsur]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
            r"|xox[abeprs]-[\w-]{10,}|nvapi-[\w-]{16,}|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[\w-]{30,}"
            r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
        ),
        MARK,
    ),
]


def redacted(text: str) -> str:
    """Return ``text`` with ``[key]`` in the place of every key; call it before the text is cut.

    Keys are the values of the environment's variables that are named like one (``ENVGYM_API_KEY``, ``HF_TOKEN``),
    plain, quoted for a URL or escaped, and in part, as far as half of one is left; user and password of a URL, and
    parameters of its query that are named like a key; what is named so in a header, an object or a setting; and
    what has the form of a well-known service's key.
    """
    text = without_known_keys(text)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def without_known_keys(text: str) -> str:
    """Return ``text`` with ``[key]`` in the place of the environment's keys; whatever else it holds is data."""
    keys = _known()
    for key in keys:
        text = text.replace(key, MARK)
    for key in keys:
        text = _without_start(text, key)
    return text


def redacted_values(value: Any) -> Any:
    """Return JSON or TOML values with every text ``redacted``, and a text whole that is named like a key."""
    match value:
        case str():
            return redacted(value)
        case dict():
            return {name: _redacted_member(name, inner) for name, inner in value.items()}
        case list() | tuple():
            return [redacted_values(inner) for inner in value]
        case _:
            return value


def quoted(value: object, limit: int = 80) -> str:
    """Return ``repr(value)`` for a message, redacted and then cut to ``limit`` characters."""
    return redacted(repr(value))[:limit]


def _redacted_member(name: Any, value: Any) -> Any:
    if isinstance(value, str) and value and _NAMED.match(str(name)):
        return MARK
    return redacted_values(value)


def _known() -> list[str]:
    """Return the values of the environment's keys in every spelling, the longest first."""
    keys = (value.strip() for name, value in os.environ.items() if _holds_key(name))
    return _spelt(tuple(key for key in keys if len(key) >= _SHORTEST))


@functools.cache
def _holds_key(name: str) -> bool:
    return bool(_HELD_BY.search(name))


@functools.lru_cache(maxsize=8)
def _spelt(keys: tuple[str, ...]) -> list[str]:
    found = {spelt for key in keys for spelt in _spellings(key)}
    return sorted(found, key=lambda key: (-len(key), key))


def _spellings(key: str) -> Iterator[str]:
    yield key
    for safe in ("", "/"):
        yield quote(key, safe=safe, errors="surrogateescape")
        yield quote_plus(key, safe=safe, errors="surrogateescape")
    for ascii_only in (True, False):
        yield json.dumps(key, ensure_ascii=ascii_only)[1:-1]
    yield repr(key)[1:-1]


def _without_start(text: str, key: str) -> str:
    """Return ``text`` without what a cut left of the key, if that is half of it at least."""
    start = key[: max(8, len(key) // 2)]
    place = text.find(start)
    while place >= 0:
        end = place + len(start)
        while end < len(text) and end - place < len(key) and text[end] == key[end - place]:
            end += 1
        text = text[:place] + MARK + text[end:]
        place = text.find(start, place + len(MARK))
    return text
