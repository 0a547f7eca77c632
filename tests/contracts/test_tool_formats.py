"""What every registered tool format must do; nothing here names one, but for those that a stranger could write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from envgym.chat.tool_formats import MAX_CALLS, ToolFormat, dropped, make_call, tool_formats
from envgym.records import Message, ToolSpec
from envgym.strict_json import parse_json
from envgym.testing.tool_formats import ToolFormatContract


class TestRegistered(ToolFormatContract):
    """Every format that is installed."""

    name: str

    @pytest.fixture(autouse=True, scope="class", params=tool_formats.plugins())
    @classmethod
    def _named(cls, request: pytest.FixtureRequest) -> None:
        cls.name = request.param

    def tool_format(self) -> ToolFormat:
        return tool_formats.make(self.name)


class LineFormat(ToolFormat):
    """A line ``CALL {json}`` for each call, behind the content."""

    def parse(self, text: str) -> Message:
        lines = text.split("\n")
        bodies = [line.removeprefix("CALL ") for line in lines if line.startswith("CALL ")]
        content = "\n".join(line for line in lines if not line.startswith("CALL ")).strip()
        calls = [make_call(self._decoded(body), f"call_{i}") for i, body in enumerate(bodies[:MAX_CALLS])]
        content = content.encode("utf-8", "replace").decode()
        return Message(role="assistant", content=content, tool_calls=(*calls, *dropped(len(bodies) - MAX_CALLS)))

    def render(self, message: Message) -> str:
        calls = [json.dumps({"name": c.name, "arguments": c.arguments}) for c in message.tool_calls]
        return "\n".join([message.content, *(f"CALL {call}" for call in calls)])

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        return "\n".join(json.dumps([tool.name, tool.parameters]) for tool in tools)

    @staticmethod
    def _decoded(body: str) -> object:
        try:
            return parse_json(body)
        except ValueError:
            return None


class TestStranger(ToolFormatContract):
    """The contract can be met by a format that writes calls in another way."""

    def tool_format(self) -> ToolFormat:
        return LineFormat()


class _Careless(LineFormat):
    """Splits at a mark that arguments may hold, decodes without care, and names no parameters."""

    def parse(self, text: str) -> Message:
        content, *bodies = text.split("}}\n")
        calls = tuple(make_call(json.loads(body), "call") for body in bodies)
        return Message(role="assistant", content=content, tool_calls=calls)

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        return ", ".join(tool.name for tool in tools)


class TestCareless:
    """The contract notices a format that breaks it."""

    class Contract(ToolFormatContract):
        def tool_format(self) -> ToolFormat:
            return _Careless()

    def test_marks_inside_arguments(self) -> None:
        test: Any = ToolFormatContract.test_parsing_inverts_rendering
        with pytest.raises(AssertionError):
            test.hypothesis.inner_test(self.Contract(), "", [("t", {"a": "b"})])

    def test_garbage(self) -> None:
        test: Any = ToolFormatContract.test_parsing_never_raises_and_its_message_can_be_stored
        with pytest.raises(json.JSONDecodeError):
            test.hypothesis.inner_test(self.Contract(), "}}\n{")

    def test_descriptions(self) -> None:
        test: Any = ToolFormatContract.test_every_tool_is_described
        with pytest.raises(AssertionError):
            test.hypothesis.inner_test(self.Contract(), ["t"])
