"""Messages as gpt-oss writes them: channels for thoughts, calls and what is said."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError, make_call, malformed, read_json
from envgym.chat.tool_formats.scanning import message_of
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["HarmonyFormat"]

_HEAD = re.compile(
    r"(?:(?:<\|start\|>|\A)\s*+(?:assistant)?\s*+)?(?P<head>(?:(?<![^\s>])to=[^\s<]++\s*+)?"
    r"(?:<\|channel\|>[^<\n]*+)?(?:<\|constrain\|>[^<\n]*+)?)<\|message\|>"
)
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_END = re.compile(r"<\|(?:end|call|return)\|>|(?=<\|start\|>)|(?=<\|channel\|>)")
_TAIL = re.compile(r"\s*<\|(?:end|call|return)\|>")
_MARK = re.compile(r"<(?=\|)")
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_SPACE = re.compile(r"\s*")
_PREFIX = "functions."
_HEADERS = ("<|start|>", "<|channel|>", "to=")


class HarmonyFormat(ToolFormat):
    """``<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>``.

    What the analysis channel says stands between ``<think>`` and ``</think>`` in the content, as other families
    write their thoughts.
    """

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the mark of a channel beside that of a message."""
        return "<|channel|>" in template and "<|message|>" in template

    def parse(self, text: str) -> Message:
        """Read an assistant message; what no channel is given for is content."""
        content: list[str] = []
        calls: list[ToolCall] = []
        place = 0
        while found := _HEAD.search(text, place):
            content.append(text[place : found.start()])
            place = _read(text, found, content, calls)
        rest = text[place:]
        if rest.lstrip().startswith(_HEADERS) and (recipient := _RECIPIENT.search(rest)):
            calls.append(malformed("it is cut short", recipient[1].removeprefix(_PREFIX)))
            rest = ""
        return message_of("".join([*content, rest]), calls)

    def render(self, message: Message) -> str:
        """Write thoughts, content and calls, each in its channel."""
        thought = _THOUGHT.match(message.content)
        parts = [f"<|channel|>analysis<|message|>{thought[1]}<|end|>"] if thought else []
        words = message.content[thought.end() :] if thought else message.content
        if words or not (message.tool_calls or thought):
            channel = "commentary" if message.tool_calls else "final"
            parts.append(f"<|channel|>{channel}<|message|>{words}" + ("<|end|>" if message.tool_calls else ""))
        parts += map(_block, message.tool_calls)
        return "<|start|>assistant".join(parts)

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\nWrite a call as "
            "<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|> "
            "and wait for the answer."
        )


def _block(call: ToolCall) -> str:
    arguments = _MARK.sub("\\\\u003c", json.dumps(call.arguments, ensure_ascii=False))
    return f"<|channel|>commentary to={_PREFIX}{call.name} <|constrain|>json<|message|>{arguments}<|call|>"


def _read(text: str, found: re.Match[str], content: list[str], calls: list[ToolCall]) -> int:
    """Read the body of one message into ``content`` or ``calls``; return the place behind it."""
    recipient = _RECIPIENT.search(found["head"])
    channel = _CHANNEL.search(found["head"])
    thinks = channel is not None and channel[1] == "analysis"
    if recipient and recipient[1] not in ("user", "all") and not (thinks and not recipient[1].startswith(_PREFIX)):
        return _read_call(text, found.end(), recipient[1].removeprefix(_PREFIX), calls)
    end = _END.search(text, found.end())
    body = text[found.end() : end.start() if end else len(text)]
    content.append(f"<think>{body}</think>" if thinks else body)
    return end.end() if end else len(text)


def _read_call(text: str, start: int, name: str, calls: list[ToolCall]) -> int:
    try:
        arguments, place = read_json(text, space.end() if (space := _SPACE.match(text, start)) else start)
    except UnreadableCallError as error:
        calls.append(malformed(str(error), name))
        end = _END.search(text, error.at)
        return end.end() if end else len(text)
    calls.append(make_call({"name": name, "arguments": arguments}))
    tail = _TAIL.match(text, place)
    return tail.end() if tail else place
