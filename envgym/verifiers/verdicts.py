"""Read a judge's verdict: one JSON object with one key, bare, fenced, after thoughts, or in prose.

Whoever is graded would like to write the verdict, and a judge may quote what it reads. What it is shown must
therefore hold nothing that reads like a verdict, or like the end of thoughts; see ``unquotable``.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["read_verdict", "unquotable"]

_THOUGHT = r"(?:think|thinking|thought|thoughts|reasoning)"
_BEGUN = re.compile(rf"<\s*{_THOUGHT}\s*>", re.IGNORECASE)
_ENDED = re.compile(rf"<\s*/\s*{_THOUGHT}\s*>", re.IGNORECASE)
_TAG = re.compile(rf"<(?=\s*/?\s*{_THOUGHT})", re.IGNORECASE)
_FENCED = re.compile(r"```[a-zA-Z]*\s*(\{[^`]*\})\s*```")
_ESCAPED = re.compile(r"\\u[0-9a-fA-F]{4}")
"""A letter as JSON may spell it, of which a key may consist."""
_OBJECT = re.compile(r"\{[^{}]*\}")
_ROUND = str.maketrans("{}", "()")
_MAX_CHARS = 100_000


def unquotable(text: str, key: str) -> str:
    """Return ``text`` so that no quotation of it is a verdict under ``key``.

    Where it names the key, braces become round; the tags of thoughts lose their bracket. Other texts stay.
    """
    text = _TAG.sub("(", text)
    named = key in text.casefold() or _ESCAPED.search(text)
    return text.translate(_ROUND) if named else text


def read_verdict(reply: str, key: str) -> Any:
    """Return the value under ``key`` in the reply's one verdict, or None if there is none, or more than one."""
    if len(reply) > _MAX_CHARS:
        return None
    said = _ENDED.split(reply)[-1].strip()
    if _BEGUN.search(said):
        return None
    if fenced := _FENCED.fullmatch(said):
        said = fenced[1]
    try:
        return _value(json.loads(said, object_pairs_hook=_once), key)
    except (ValueError, RecursionError):
        pass
    objects = [found for found in _OBJECT.finditer(said) if key in found[0].casefold()]
    if len(objects) != 1 or said[: objects[0].start()].count("{") != said[: objects[0].start()].count("}"):
        return None
    try:
        return _value(json.loads(objects[0][0], object_pairs_hook=_once), key)
    except ValueError:
        return None


def _value(reply: Any, key: str) -> Any:
    return reply[key] if isinstance(reply, dict) and set(reply) == {key} else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different.

    Raises:
        ValueError: two are the same, and say two things.
    """
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)
