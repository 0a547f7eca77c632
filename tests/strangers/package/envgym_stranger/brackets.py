"""A tool format: one call a line, ``[[name {"argument": "value"}]]``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym import Message, ToolCall, ToolSpec
from envgym.chat.tool_formats import MAX_CALLS, ToolFormat, dropped, make_call
from envgym.strict_json import parse_json

_CALL = re.compile(r"^\[\[(\S*) (.*)\]\]$", re.MULTILINE)


class Brackets(ToolFormat):
    """Writes a call into double brackets, on a line of its own."""

    def parse(self, text: str) -> Message:
        """Read an assistant message."""
        found = _CALL.findall(text)
        calls = [_read(name, body, f"call_{i}") for i, (name, body) in enumerate(found[:MAX_CALLS])]
        calls += dropped(len(found) - MAX_CALLS)
        return Message(role="assistant", content=_CALL.sub("", text).strip(), tool_calls=tuple(calls))

    def render(self, message: Message) -> str:
        """Write content, then one line a call."""
        lines = [f"[[{call.name} {json.dumps(call.arguments)}]]" for call in message.tool_calls]
        return "\n".join(part for part in (message.content, *lines) if part)

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """Name every tool and its parameters."""
        listed = "\n".join(f"{t.name}: {t.description} {json.dumps(t.parameters)}" for t in tools)
        return f"Tools:\n{listed}\nCall one by a line that reads [[name {{...}}]]."


def _read(name: str, body: str, call_id: str) -> ToolCall:
    try:
        return make_call({"name": name, "arguments": parse_json(body)}, call_id)
    except ValueError as error:
        return ToolCall(name=name, id=call_id, error=f"the arguments are not JSON ({str(error)[:100]})")
