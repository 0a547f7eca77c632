"""Parse a completion's text into a message with tool calls, in the format of the model's family.

Models write anything, so parsing never raises. A call that cannot be read becomes a ``ToolCall`` with ``error``
set, which the environment answers with that text.
"""

from __future__ import annotations

import abc
import json
import re
from collections.abc import Sequence
from typing import Any

from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.records import Message, ToolCall, ToolSpec
from envgym.strict_json import parse_json

__all__ = ["MAX_CALLS", "HermesFormat", "ToolFormat", "dropped", "make_call", "tool_formats"]

MAX_CALLS = 16
"""Maximum number of calls of one message that are run."""
_CLOSE = "</tool_call>"
_CLOSE_IN_JSON = "<\\/tool_call>"


def make_call(body: Any, call_id: str) -> ToolCall:
    """Return the call of a decoded ``{"name": …, "arguments": {…}}``; its ``error`` says what is wrong."""
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        return ToolCall(name="", id=call_id, error='a tool call needs a "name" string')
    arguments = body.get("arguments", {})
    if not isinstance(arguments, dict):
        return ToolCall(name=body["name"], id=call_id, error='"arguments" must be an object')
    return ToolCall(name=body["name"], arguments=arguments, id=call_id)


def dropped(count: int) -> tuple[ToolCall, ...]:
    """Return one call with an error in place of ``count`` calls beyond ``MAX_CALLS``, none if there are none."""
    if count <= 0:
        return ()
    reason = f"at most {MAX_CALLS} tool calls per message are run; {count} more were dropped"
    return (ToolCall(name="", id=f"call_{MAX_CALLS}", error=reason),)


class ToolFormat(Plugin, abc.ABC):
    """The syntax of tool calls of one family of models.

    A recipe names it as ``model.tool_format``; sampling, imitation and evaluation use it alike. Its contract is
    tested by ``envgym.testing.tool_formats.ToolFormatContract``.
    """

    @abc.abstractmethod
    def parse(self, text: str) -> Message:
        """Parse sampled text into an assistant message; never raise, whatever the text holds."""

    @abc.abstractmethod
    def render(self, message: Message) -> str:
        """Return the text that parses to an assistant message; call ids are not kept."""

    @abc.abstractmethod
    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """Return a prompt that lists the tools and the format of a call, for chat templates that do neither."""


class HermesFormat(ToolFormat):
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, as Qwen and Hermes models write it."""

    _BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        blocks = self._BLOCK.findall(text)
        if not blocks:
            return Message(role="assistant", content=text.strip())
        calls = [self._call(block, f"call_{i}") for i, block in enumerate(blocks[:MAX_CALLS])]
        calls += dropped(len(blocks) - MAX_CALLS)
        content = self._BLOCK.sub("", text).strip()
        return Message(role="assistant", content=content, tool_calls=tuple(calls))

    def render(self, message: Message) -> str:
        """Write content, then one block per call. A closing tag inside an argument does not end the block."""
        blocks = [self._block(call) for call in message.tool_calls]
        return "\n".join([part for part in (message.content, *blocks) if part])

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List names, descriptions and parameters as JSON, and show the form of a call."""
        listed = "\n".join(
            json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}) for t in tools
        )
        return (
            f"You may call tools:\n{listed}\n"
            'Write a call as <tool_call>{"name": "...", "arguments": {...}}</tool_call> and wait for the answer.'
        )

    def _block(self, call: ToolCall) -> str:
        body = {"name": call.name, "arguments": call.arguments}
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).replace(_CLOSE, _CLOSE_IN_JSON)
        return f"<tool_call>{text}{_CLOSE}"

    def _call(self, block: str, call_id: str) -> ToolCall:
        try:
            return make_call(parse_json(block), call_id)
        except ValueError as error:
            return ToolCall(name="", id=call_id, error=f"the tool call is not valid JSON ({str(error)[:100]})")


tool_formats: Registry[ToolFormat] = Registry(
    "tool format", "envgym.tool_formats", "envgym.chat.tool_formats:ToolFormat"
)
"""Every tool format that is installed or registered."""
