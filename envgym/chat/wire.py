"""Messages as chat servers take them, and tool calls as they give them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from envgym.chat.refusals import PLAIN_ROLES, SYSTEM_ROLE, TEXT_CALLS, TOOLS
from envgym.chat.tool_formats import MAX_CALLS, ToolFormat, dropped, make_call
from envgym.records import Message, ToolCall, ToolSpec
from envgym.strict_json import parse_json

__all__ = ["Said", "read_calls", "write_messages", "write_tools"]

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of a conversation, with what the server wants to see of it again."""

    message: Message
    echo: dict[str, Any] = field(default_factory=dict)
    """Fields of an answer that go back as they came."""
    text: str = ""
    """Text of an answer, with the calls that it holds, as it came."""


def write_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Return the tools as a field of the request."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": t.parameters},
        }
        for t in tools
    ]


def write_messages(
    said: Sequence[Said], tools: Sequence[ToolSpec], tool_format: ToolFormat, refused: Collection[str]
) -> list[dict[str, Any]]:
    """Return the messages of a request, for a server that does not take what ``refused`` names.

    Calls go back as they came, as fields or in the text: many chat templates show the text as it is, and drop
    the fields. Without ``TEXT_CALLS`` they are fields. Without ``TOOLS``, the prompt describes the tools, calls
    are text of the assistant, and their answers are text of the user, which every chat template shows. With
    ``PLAIN_ROLES``, user and assistant take turns.
    """
    plain = PLAIN_ROLES in refused
    if TOOLS in refused or plain:
        written = [_as_text(s, tool_format) for s in said]
        if tools:
            written = _with_system(written, tool_format.describe(tools))
    else:
        written = [_as_openai(s, refused) for s in said]
    if plain or SYSTEM_ROLE in refused:
        written = [{**m, "role": "user"} if m["role"] == "system" else m for m in written]
    # One message for what follows each other: a call's answers, the instructions and the question.
    return _joined(written) if plain or TOOLS in refused or SYSTEM_ROLE in refused else written


def read_calls(raw: Sequence[Any], first: int) -> tuple[ToolCall, ...]:
    """Return the calls of an answer, ``MAX_CALLS`` at most; what cannot be read is a call with an error.

    Args:
        raw: as the server gave them.
        first: number that begins the ids of those that have none.
    """
    calls = [_call(item, f"call_{first + i}") for i, item in enumerate(raw[:MAX_CALLS])]
    return (*calls, *dropped(len(raw) - MAX_CALLS))


def _as_openai(said: Said, refused: Collection[str]) -> dict[str, Any]:
    message = said.message
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        record["tool_call_id"] = message.tool_call_id
    if said.text and message.tool_calls and TEXT_CALLS not in refused:
        record["content"] = said.text
    elif message.tool_calls:
        record["tool_calls"] = [_call_as_openai(call) for call in message.tool_calls]
    return record | {name: value for name, value in said.echo.items() if name not in refused}


def _call_as_openai(call: ToolCall) -> dict[str, Any]:
    name = _NO_NAME.sub("_", call.name)[:64] or "unreadable"
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
    }


def _as_text(said: Said, tool_format: ToolFormat) -> dict[str, Any]:
    message = said.message
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
    if message.tool_calls:
        return {"role": message.role, "content": said.text or tool_format.render(message)}
    return {"role": message.role, "content": message.content}


def _with_system(written: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    if written and written[0]["role"] == "system":
        return [{**written[0], "content": f"{written[0]['content']}\n\n{text}"}, *written[1:]]
    return [{"role": "system", "content": text}, *written]


def _joined(written: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for message in written:
        if joined and joined[-1]["role"] == message["role"] == "user":
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def _call(raw: Any, fallback_id: str) -> ToolCall:
    call_id = raw.get("id") if isinstance(raw, dict) else None
    call_id = call_id if isinstance(call_id, str) and call_id.isascii() and call_id.isprintable() else ""
    call_id = call_id if 0 < len(call_id) <= 100 else fallback_id
    try:
        function = raw["function"]
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            arguments = parse_json(arguments)
        body = {"name": function.get("name"), "arguments": arguments}
        return make_call(parse_json(json.dumps(body)), call_id)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return ToolCall(name="", id=call_id, error=f"the tool call cannot be read ({error!s:.100})")
