"""What a chat template takes, found by trying it: roles, their order, and the form of content and of calls."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from envgym.chat.tool_formats import ToolFormat
from envgym.chat.tool_formats.scanning import THOUGHTS
from envgym.errors import UserError
from envgym.records import Role, ToolCall

__all__ = ["REFUSALS", "Entry", "Manners", "begun_thought"]

REFUSALS = (TemplateError, ValueError, TypeError, LookupError, AttributeError)
"""What a template raises that does not take a conversation."""
_BETWEEN = "\n\n"
_THOUGHT = re.compile(r"\s|</?think>|<\|channel>thought|<channel\|>")
_UNREADABLE = "unreadable"
_BEGUN = re.compile(rf"(?:{'|'.join(map(re.escape, THOUGHTS))})\s*\Z")
_FAR = 80
_NAME, _ID = "look", "call00000"
_WORDS = {name: f"Zq{name}qz" for name in ("system", "user", "said", "answer", "end", "more")}
_FORMS: tuple[tuple[Literal["text", "calls", "user"], bool], ...] = (
    ("text", False),
    ("calls", False),
    ("calls", True),
    ("user", False),
)
"""Ways to give calls and tools' answers, and whether arguments are encoded as JSON; tried in this order."""


Thoughts = Literal["text", "whole", "apart"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One message as a conversation keeps it, for any template."""

    role: Role
    content: str
    thought: str = ""
    """Of an assistant whose calls are given apart: its thoughts, which then are not in ``content``."""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    """Of a tool: the call that it answers, and ``name`` of the tool."""
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Manners:
    """The form in which a chat template takes a conversation."""

    tokenizer: PreTrainedTokenizerBase
    frame: tuple[str, str] = ("", "")
    """What the tool format writes before and after a tool's answer in a user's text."""
    system: bool = True
    """It takes a system message; if not, its text stands at the beginning of the first user message."""
    answers: Literal["text", "calls", "user"] = "text"
    """Role of a tool's answer: a tool's, behind an assistant's plain text; a tool's, behind calls that are given
    apart; or a user's, in the words of the tool format."""
    merged: bool = False
    """Neighbours of one role must be one message."""
    parts: bool = False
    """Content is a list of parts."""
    encoded: bool = False
    """Arguments of calls are JSON in a string."""
    closed: bool = True
    """It writes something behind an assistant's text; if not, the next header is what ends a turn."""
    thoughts: Thoughts = "text"
    """Where a thought goes that the prompt has begun: it stays as sampled, without the mark that begins it; that
    mark is put before it; or it is given apart."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, tool_format: ToolFormat) -> Manners:
        """Return the manners of a tokenizer's template, the most natural that it takes; they are found once.

        Raises:
            UserError: it takes no conversation with a tool's answer in any form.
        """
        before, _, after = tool_format.answer(_WORDS["answer"]).partition(_WORDS["answer"])
        return _found(tokenizer, str(tokenizer.chat_template), (before, after))

    def render(self, history: Sequence[Entry], tools: Any, *, generate: bool = True) -> str:
        """Return a conversation as the template writes it, up to the header of the next completion."""
        messages = [self._message(entry) for entry in self._ordered(history)]
        return str(
            self.tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=generate
            )
        )

    def _ordered(self, history: Sequence[Entry]) -> list[Entry]:
        """Return the entries in the roles and the order that the template takes."""
        entries = list(history)
        if self.answers == "user":
            entries = list(self._as_users(entries))
        if not self.system:
            entries = [dataclasses.replace(e, role="user") if e.role == "system" else e for e in entries]
        return list(_joined(entries)) if self.merged or not self.system else entries

    def _as_users(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        for role, group in itertools.groupby(entries, lambda entry: entry.role):
            if role == "tool":
                before, after = self.frame
                yield Entry(role="user", content="\n".join(before + entry.content + after for entry in group))
            else:
                yield from group

    def _message(self, entry: Entry) -> dict[str, Any]:
        content: Any = [{"type": "text", "text": entry.content}] if self.parts else entry.content
        message: dict[str, Any] = {"role": entry.role, "content": content}
        if entry.role == "tool" and entry.call_id:
            message |= {"tool_call_id": entry.call_id, "name": entry.name or _UNREADABLE}
        if entry.thought:
            # Templates of channels take thoughts or words beside calls, not both.
            thought = f"{entry.thought}\n{entry.content}".strip() if entry.calls else entry.thought
            message |= {"thinking": thought, "reasoning_content": thought}
            message["content"] = "" if entry.calls else content
        if entry.calls:
            message["tool_calls"] = [self._call(call) for call in entry.calls]
        return message

    def _call(self, call: ToolCall) -> dict[str, Any]:
        arguments = json.dumps(call.arguments, ensure_ascii=False) if self.encoded else call.arguments
        function = {"name": call.name or _UNREADABLE, "arguments": arguments}
        return {"id": call.id, "type": "function", "function": function}

    def takes(self) -> bool:
        """Return true if the template shows every word of an episode with tools, in order."""
        words = _WORDS
        history = [
            Entry(role="system", content=words["system"]),
            Entry(role="user", content=words["user"]),
            self.assistant(words["said"]),
            self.tool(words["answer"]),
            Entry(role="assistant", content=words["end"]),
            Entry(role="user", content=words["more"]),
        ]
        shown = [words[name] for name in ("system", "user", "said", "answer", "end", "more")]
        plain = self.answers == "calls" or self._is_plain(history[:3])
        return plain and all(self._shows(history[:n], shown[:n]) for n in (2, 4, 6))

    def assistant(self, words: str) -> Entry:
        """Return an assistant's entry for a probe: it says ``words``, or passes them to a tool."""
        if self.answers != "calls":
            return Entry(role="assistant", content=words)
        call = ToolCall(name=_NAME, arguments={"key": words}, id=_ID)
        return Entry(role="assistant", content="", calls=(call,))

    def tool(self, content: str) -> Entry:
        """Return the entry of a tool that answers ``assistant``."""
        return Entry(role="tool", content=content, call_id=_ID, name=_NAME)

    def takes_neighbours(self) -> bool:
        """Return true if messages of one role may follow each other."""
        users = [Entry(role="user", content=_WORDS[name]) for name in ("user", "more")]
        return self._shows(users, [_WORDS["user"], _WORDS["more"]])

    def closes(self) -> bool:
        """Return true if the template writes something behind the text of an assistant."""
        history = [Entry(role="user", content=_WORDS["user"]), Entry(role="assistant", content=_WORDS["said"])]
        return bool(self.render(history, None, generate=False).partition(_WORDS["said"])[2].strip())

    def thoughts_taken(self) -> Thoughts:
        """Return the form in which the template goes on from a thought that it began in the prompt.

        Where none does, because it drops thoughts, the first in which no half of one is left.
        """
        words = _WORDS
        history = [Entry(role="system", content=words["system"]), Entry(role="user", content=words["user"])]
        header = self.render(history, None)
        begun = begun_thought(header)
        if not begun or self.answers == "calls":
            return "text"
        ending = f"\n{THOUGHTS[begun.strip()]}\n\n"
        sampled = f"{words['more']}{ending}{words['said']}"
        forms: tuple[Thoughts, ...] = ("text", "whole", "apart")
        shown: dict[Thoughts, str] = {}
        for form in forms:
            said = dataclasses.replace(self, thoughts=form).said(sampled, begun)
            with contextlib.suppress(*REFUSALS):
                shown[form] = self.render([*history, said, self.tool(words["answer"])], None)
        goes_on = [form for form, text in shown.items() if text.startswith(header + sampled)]
        dropped = [form for form, text in shown.items() if words["more"] not in text]
        return next(iter([*goes_on, *dropped]), "text")

    def said(self, text: str, begun: str) -> Entry:
        """Return the entry of an assistant's text as it was sampled, behind a prompt that ends with ``begun``."""
        if begun and self.thoughts == "apart":
            thought, ended, words = text.partition(THOUGHTS[begun.strip()])
            if ended:
                return Entry(role="assistant", content=words.lstrip("\n"), thought=thought.strip("\n"))
        return Entry(role="assistant", content=begun + text if self.thoughts == "whole" else text)

    def _shows(self, history: Sequence[Entry], words: Sequence[str]) -> bool:
        try:
            text = self.render(history, None)
        except REFUSALS:
            return False
        place = 0
        for word in words:
            place = text.find(word, place) + len(word)
            if place < len(word):
                return False
        return True

    def _is_plain(self, history: Sequence[Entry]) -> bool:
        """Return true if the assistant's text follows the header of its turn, but for an empty thought.

        Where a template writes more of the header around it, such as a channel, that is for the model to write.
        """
        try:
            header = self.render(history[:-1], None)
            text = self.render(history, None, generate=False)
        except REFUSALS:
            return False
        before = text.partition(history[-1].content)[0]
        same = next((i for i, (a, b) in enumerate(zip(header, before, strict=False)) if a != b), len(header))
        return not _THOUGHT.sub("", before[same:])


def begun_thought(text: str) -> str:
    """Return the mark that begins a thought, and the white space behind it, where a prompt ends so."""
    found = _BEGUN.search(text, max(0, len(text) - _FAR))
    return found[0] if found else ""


def _joined(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the entries, those of users that follow each other as one, and so for systems."""
    for role, found in itertools.groupby(entries, lambda entry: entry.role):
        group = list(found)
        if role in ("user", "system"):
            yield Entry(role=role, content=_BETWEEN.join(entry.content for entry in group))
        else:
            yield from group


@functools.lru_cache(maxsize=8)
def _found(tokenizer: PreTrainedTokenizerBase, template: str, frame: tuple[str, str]) -> Manners:
    for parts, (answers, encoded), system in itertools.product((False, True), _FORMS, (True, False)):
        manners = Manners(
            tokenizer=tokenizer,
            frame=frame,
            system=system,
            answers=answers,
            parts=parts,
            encoded=encoded,
        )
        if manners.takes():
            return dataclasses.replace(
                manners,
                merged=not manners.takes_neighbours(),
                closed=manners.closes(),
                thoughts=manners.thoughts_taken(),
            )
    raise UserError(
        "the model's chat template takes no conversation with a tool's answer: neither in a role of its own "
        "nor as a user's text"
    )
