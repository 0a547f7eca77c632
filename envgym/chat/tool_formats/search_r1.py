"""Searches as Search-R1 writes them: a query between tags, an answer between others."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError, make_call, read_json
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["SearchR1Format"]

_OPENING = re.compile(r"<search>")
_CLOSE = "</search>"
_MARKS = scanner(_OPENING.pattern)
_TOOL, _PARAMETER = "search", "query"
_LEAD, _TRAIL = re.compile(r"\s*"), re.compile(rf"\s*{_CLOSE}")


class SearchR1Format(ToolFormat):
    """``<search>words</search>`` calls ``search(query="words")``; other calls stand between the tags as JSON.

    The environment's answer comes between ``<information>`` tags, where the template has no role for tools;
    ``<answer>`` stays in the content, where environments look for it.
    """

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the searches."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then one search a line."""
        return "\n".join(filter(None, [message.content, *map(_block, message.tool_calls)]))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a search and of an answer."""
        return (
            f"You may call tools:\n{listed(tools)}\nWrite a search as <search>words</search> and wait for what "
            'comes between <information> and </information>; write another call as <search>{"name": "...", '
            '"arguments": {...}}</search>. Write the answer as <answer>...</answer>.'
        )

    def answer(self, content: str) -> str:
        """Return what was found, between the tags that the family has for it."""
        return f"<information>\n{content}\n</information>"


def _block(call: ToolCall) -> str:
    query = call.arguments.get(_PARAMETER)
    if call.name == _TOOL and call.arguments.keys() == {_PARAMETER} and isinstance(query, str):
        text = f"<search>{query}</search>"
        found = _OPENING.match(text)
        if found and _read(text, found) == ([ToolCall(name=_TOOL, arguments={_PARAMETER: query})], len(text)):
            return text
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    return f"<search>{body}</search>"


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    lead = _LEAD.match(text, found.end())
    start = lead.end() if lead else found.end()
    if text.startswith('{"name"', start):
        try:
            body, end = read_json(text, start)
        except UnreadableCallError:
            pass  # a query may begin with a brace
        else:
            trail = _TRAIL.match(text, end)
            return [make_call(body)], trail.end() if trail else end
    end = text.find(_CLOSE, start)
    if end < 0 and (not leads(text, found.start()) or _OPENING.search(text, start)):
        return None
    query = text[start : end if end >= 0 else len(text)].strip()
    after = end + len(_CLOSE) if end >= 0 else len(text)
    if not query:
        return [ToolCall(name=_TOOL, error="the search is empty")], after
    return [ToolCall(name=_TOOL, arguments={_PARAMETER: query})], after
