"""What a server does not take of a request, read from the words in which it refuses it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["PLAIN_ROLES", "REASONING", "SYSTEM_ROLE", "TEXT_CALLS", "TOOLS", "refused_parts"]

TOOLS = "tools"
"""Tools as a field of the request, calls and answers as fields and roles of messages."""
PLAIN_ROLES = "roles other than user and assistant in turn"
SYSTEM_ROLE = "the system role"
TEXT_CALLS = "answers of tools to calls in the text of a message"
REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""Fields of an assistant's message that hold its thoughts."""

_ESSENTIAL = frozenset({"model", "messages", "stream"})
_REFUSED = (
    r"(?:unsupported|not (?:currently )?support\w*|n't support|unknown|unrecogni[sz]ed|extra_forbidden|"
    r"extra (?:inputs|fields)|not (?:permitted|allowed|accepted|available|enabled|implemented)|unexpected|"
    r"cannot find field|deprecated|only the default|invalid (?:param|argument|field)|no such (?:param|field)|"
    r"additional propert)"
)
_RANGE = r"(?:greater|less|between|in the range|at least|at most|must be|<=|>=)"
"""Words about a value: the field itself is taken."""
_TOOLS = re.compile(
    r"--enable-auto-tool-choice|--tool-call-parser|--jinja|"
    r"(?:\btools?\b|\btool[ _-](?:choice|call\w*|use|parser)|\bfunction[ _-]call\w*)[^\n]{0,80}?"
    rf"(?:{_REFUSED}|\brequires?\b)|"
    rf"(?:{_REFUSED}|no endpoints found)[^\n]{{0,60}}?(?:\btools?\b|\btool[ _-](?:choice|call\w*|use)|"
    r"\bfunction[ _-]call\w*)"
)
_ROLES = re.compile(
    r"roles? must alternate|must alternate|only (?:support )?user(?:,| and)? ?(?:and )?(?:assistant|model)|"
    r"(?:unexpected|unknown|invalid|unsupported|not supported)[^\n]{0,30}\brole\b[^\n]{0,20}\btool\b|"
    r"\brole\b[^\n]{0,10}\btool\b[^\n]{0,40}(?:not|invalid|unsupported|unexpected)|"
    r"\btool\b[^\n]{0,10}\brole\b[^\n]{0,40}(?:not|invalid|unsupported|unexpected)|"
    r"['\"]?tool['\"]? is not (?:one of|a valid|supported)"
)
_SYSTEM = re.compile(
    r"\bsystem['\"`]? (?:role|messages?|prompt)s?[^\n]{0,30}(?:not|n't|unsupported)|"
    r"(?:unexpected|unknown|invalid|unsupported)[^\n]{0,30}\brole\b[^\n]{0,20}\bsystem\b"
)
_UNCALLED = re.compile(
    r"\btool\b[^\n]{0,60}(?:must|should|has to|needs? to)[^\n]{0,40}"
    r"(?:respon[sd]\w*|follow|prece\w*|correspond|previous|after)|"
    r"\btool\b[^\n]{0,60}(?:without|no (?:matching|corresponding|prece\w*|previous))[^\n]{0,60}\b(?:call|use)|"
    r"tool_call_id[^\n]{0,60}not found"
)
"""Words about an answer of a tool before which no call stands."""
_LOOKED_AT = 4000


def refused_parts(text: str, sent: Mapping[str, Any]) -> frozenset[str]:
    """Return the parts of the request ``sent`` that the refusal ``text`` says the server does not take.

    They are names of fields, or ``TOOLS``, ``PLAIN_ROLES``, ``SYSTEM_ROLE``, ``TEXT_CALLS``. A value out of its
    range is no such part: it is the user's to change.
    """
    words = text[:_LOOKED_AT].lower().replace('\\"', '"')
    found = set(_named(text)) & _fields(sent)
    found |= {field for field in _fields(sent) - {TOOLS} if _says(words, field)}
    roles = {message["role"] for message in sent["messages"]}
    if _answers_text(sent["messages"]) and _UNCALLED.search(words):
        found.add(TEXT_CALLS)
    elif _ROLES.search(words):
        found.add(PLAIN_ROLES)
    elif "system" in roles and _SYSTEM.search(words):
        found.add(SYSTEM_ROLE)
    elif TOOLS in sent and not found and _TOOLS.search(words):
        found.add(TOOLS)
    return frozenset(found)


def _answers_text(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a tool answers a call that is in the text of the message before it."""
    return any(
        answer["role"] == "tool" and said["role"] == "assistant" and not said.get("tool_calls")
        for said, answer in itertools.pairwise(messages)
    )


def _fields(sent: Mapping[str, Any]) -> set[str]:
    inner = {name for message in sent["messages"] for name in message}
    return (set(sent) - _ESSENTIAL) | (inner & set(REASONING))


def _says(words: str, field: str) -> bool:
    # Thoughts are a word of every day, too: only as a name, in quotes.
    quote = "['\"`]" if field == "reasoning" else ""
    name = rf"(?<![\w.-]){quote}{re.escape(field)}{quote}(?![\w-])"
    if re.search(rf"{name}[^\n]{{0,80}}?{_RANGE}", words):
        return False
    return bool(re.search(rf"{name}[^\n]{{0,80}}?{_REFUSED}|{_REFUSED}[^\n]{{0,60}}?{name}", words))


def _named(text: str) -> Iterator[str]:
    """Yield the fields that a refusal names in its structure: OpenAI's ``param``, pydantic's ``loc``."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(body, dict):
        return
    error, details = body.get("error"), body.get("detail")
    if isinstance(error, dict) and str(error.get("code")).startswith(("unknown", "unsupported", "unrecognized")):
        yield str(error.get("param"))
    for detail in details if isinstance(details, list) else ():
        place = detail.get("loc") if isinstance(detail, dict) and detail.get("type") == "extra_forbidden" else None
        if isinstance(place, list) and place:
            yield str(place[-1])
