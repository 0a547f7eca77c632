"""Turn a completion's text into a message: where a model family writes its tool calls.

A model writes anything; parsing never raises. A call that cannot be read becomes a ``ToolCall`` with ``error``
set, which the environment answers with that text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol

from envgym.data import Message, ToolCall, ToolSpec

__all__ = ["HermesFormat", "ToolFormat"]

_MAX_CALLS = 16


class ToolFormat(Protocol):
    """How one family of models writes tool calls."""

    def parse(self, text: str) -> Message:
        """Read an assistant message from sampled text."""
        ...

    def render(self, message: Message) -> str:
        """Write an assistant message as the text that parses to it."""
        ...

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """Tell a model what tools there are and how to call them, where its chat template does not."""
        ...


class HermesFormat:
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, as Qwen and Hermes models write it."""

    _BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        blocks = self._BLOCK.findall(text)[:_MAX_CALLS]
        if not blocks:
            return Message(role="assistant", content=text.strip())
        calls = tuple(self._call(block, f"call_{i}") for i, block in enumerate(blocks))
        return Message(role="assistant", content=self._BLOCK.sub("", text).strip(), tool_calls=calls)

    def render(self, message: Message) -> str:
        """Write content, then one block per call."""
        blocks = [
            "<tool_call>"
            + json.dumps({"name": c.name, "arguments": c.arguments}, separators=(",", ":"), ensure_ascii=False)
            + "</tool_call>"
            for c in message.tool_calls
        ]
        return "\n".join([part for part in (message.content, *blocks) if part])

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """Names, descriptions and parameters as JSON, and the form of a call."""
        listed = "\n".join(
            json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}) for t in tools
        )
        return (
            f"You may call tools:\n{listed}\n"
            'Write a call as <tool_call>{"name": "...", "arguments": {...}}</tool_call> and wait for the answer.'
        )

    def _call(self, block: str, call_id: str) -> ToolCall:
        try:
            body = json.loads(block)
        except (ValueError, RecursionError) as error:
            reason = f"the tool call is not valid JSON ({str(error)[:100]})"
            return ToolCall(name="", id=call_id, error=reason)
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            return ToolCall(name="", id=call_id, error='a tool call needs a "name" string')
        arguments = body.get("arguments", {})
        if not isinstance(arguments, dict):
            return ToolCall(name=body["name"], id=call_id, error='"arguments" must be an object')
        return ToolCall(name=body["name"], arguments=arguments, id=call_id)
