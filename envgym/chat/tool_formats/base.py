"""What a tool format is: how one family of models writes calls, and how its text becomes a message."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import itertools
import json
from collections.abc import Sequence

from envgym.errors import UserError
from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["MAX_CALLS", "ToolFormat", "dropped", "listed", "recognise", "tool_formats", "unique_ids"]

MAX_CALLS = 16
"""Maximum number of calls of one message that are run."""
_FALLBACK = "hermes"


class ToolFormat(Plugin, abc.ABC):
    """The syntax of tool calls of one family of models.

    A recipe names it as ``model.tool_format``; sampling, imitation and evaluation use it alike. Its contract is
    tested by ``envgym.testing.tool_formats.ToolFormatContract``.

    Parsing never raises. A call that cannot be read becomes a ``ToolCall`` with ``error`` set, which the
    environment answers with that text; a mark in a thought, in a code fence or in prose is no call.
    """

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Return true if a chat template, or a list of special tokens, is of this family."""
        return False

    @abc.abstractmethod
    def parse(self, text: str) -> Message:
        """Parse sampled text into an assistant message; never raise, whatever the text holds."""

    @abc.abstractmethod
    def render(self, message: Message) -> str:
        """Return the text that parses to an assistant message; call ids are not kept."""

    @abc.abstractmethod
    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """Return a prompt that lists the tools and the format of a call, for chat templates that do neither."""

    def parse_for(self, text: str, tools: Sequence[ToolSpec]) -> Message:
        """Parse the text of a model that has ``tools``; for formats that write values without their types."""
        return self.parse(text)

    def render_for(self, message: Message, tools: Sequence[ToolSpec]) -> str:
        """Return the text that ``parse_for`` reads as ``message``."""
        return self.render(message)

    def answer(self, content: str) -> str:
        """Return a tool's answer as a user says it, for chat templates without a role for tools."""
        return f"<tool_response>\n{content}\n</tool_response>"


tool_formats: Registry[ToolFormat] = Registry(
    "tool format", "envgym.tool_formats", "envgym.chat.tool_formats.base:ToolFormat"
)
"""Every tool format that is installed or registered."""


def recognise(template: str, tokens: str = "") -> str:
    """Return the name of the tool format of a chat template, ``hermes`` where none is recognised.

    Formats of other distributions are asked first, and those that cannot be loaded not at all.

    Args:
        template: in Jinja.
        tokens: the added tokens of the tokenizer; they decide where the template tells nothing.
    """
    kinds: dict[str, type[ToolFormat]] = {}
    specs = [spec for spec in tool_formats.plugins().values() if not spec.problem]
    for spec in sorted(specs, key=lambda spec: spec.distribution == "envgym"):
        with contextlib.suppress(UserError):
            kinds[spec.name] = tool_formats.load(spec.name)
    found = (name for text in (template, tokens) for name, kind in kinds.items() if kind.recognises(text))
    return next(found, _FALLBACK)


def dropped(count: int) -> tuple[ToolCall, ...]:
    """Return one call with an error in place of ``count`` calls beyond ``MAX_CALLS``, none if there are none."""
    if count <= 0:
        return ()
    reason = f"at most {MAX_CALLS} tool calls per message are run; {count} more were dropped"
    return (ToolCall(name="", id=f"call_{MAX_CALLS}", error=reason),)


def listed(tools: Sequence[ToolSpec]) -> str:
    """Return one line of JSON for each tool: name, description, parameters."""
    return "\n".join(
        json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}) for t in tools
    )


def unique_ids(message: Message, taken: set[str]) -> Message:
    """Return ``message`` with ids that no earlier call of the conversation has, and add them to ``taken``.

    An id that the model or its server chose is kept unless it was taken. Made ones have nine letters and digits:
    the templates of Mistral take no other.
    """
    calls = []
    for place, call in enumerate(message.tool_calls):
        wanted = call.id
        if not wanted or wanted == f"call_{place}" or wanted in taken:
            wanted = next(made for n in itertools.count(len(taken)) if (made := f"call{n:05d}") not in taken)
        taken.add(wanted)
        calls.append(dataclasses.replace(call, id=wanted))
    return dataclasses.replace(message, tool_calls=tuple(calls))
