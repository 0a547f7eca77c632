"""Render messages to token ids, turn by turn, without ever re-tokenising sampled text."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from envgym.chat.tool_formats import ToolFormat, unique_ids
from envgym.records import Message, ToolCall, ToolSpec
from envgym_trainers.chat.manners import Entry, Manners, begun_thought
from envgym_trainers.chat.quoting import Quoting
from envgym_trainers.chat.structure import Structure

__all__ = ["Conversation"]

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


class _Completion(NamedTuple):
    """What was sampled."""

    place: int
    """In the history."""
    ids: list[int]
    """Without the one that ended the turn."""
    begun: str
    """The mark at the end of the prompt that begins a thought, if there is one."""


class Conversation:
    """One conversation rendered with the tokenizer's chat template.

    The ids of turn k+1 continue those of turn k as long as the template leaves history alone. If it rewrites
    history (drops earlier reasoning, say), the whole prompt is rendered anew and the turn is marked ``fork``;
    completions that it left as they were keep the ids that were sampled.

    No message makes a special token, whatever it spells: the special ids of a prompt are those of the template,
    and those that the policy sampled as such. Nor can the text of environments spell the tags around messages.

    Messages are brought into the form that the template takes; see ``Manners``. If it ignores tools, the system
    message describes them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[ToolSpec], tool_format: ToolFormat
    ) -> None:
        self._tokenizer = tokenizer
        self._format = tool_format
        self._manners = Manners.of(tokenizer, tool_format)
        self._structure = Structure.of(self._manners)
        self._quoting = Quoting.of(tokenizer)
        self._specs = tuple(tools)
        self._tools: Any = [_as_openai(spec) for spec in tools] or None
        self._described = self._quoting.quote(tool_format.describe(tools)) if tools else ""
        self._history: list[Entry] = []
        self._completions: list[_Completion] = []
        self._rendered = ""
        """Text that the model has seen, in the template's words; special tokens in messages are quoted. It holds
        the sampled text where the template shows an assistant's text as it is."""
        self._endings: tuple[str, ...] = ("",)
        """Texts that the template may write for the stop token that ended the last turn."""
        self._call_ids: set[str] = set()
        self._unanswered: list[ToolCall] = []
        """Calls whose answers have not been heard."""
        self._begun = ""
        """A mark that begins a thought, where the prompt ends with it."""
        self.message = Message(role="assistant", content="")
        """The last completion as the tool format reads it, its calls under ids of their own."""

    def prompt(self, messages: Sequence[Message]) -> tuple[list[int], bool]:
        """Render ``messages`` to the ids before the next completion.

        Returns:
            the ids, and true if they replace the conversation instead of continuing it.
        """
        first = not self._history
        self._history += map(self._heard, messages)
        text = self._manners.render(self._history, self._tools)
        if first and self._tools and text == self._manners.render(self._history, None):
            self._describe_tools()
            text = self._manners.render(self._history, None)
        added = self._added(text)
        fork = bool(self._rendered) and added is None
        new = self._anew(text) if added is None else self._quoting.encode(added)
        self._rendered, self._endings = text, ("",)
        self._begun = begun_thought(text)
        return new, fork

    def sampled(self, ids: Sequence[int], stops: Sequence[int]) -> str:
        """Record a completion and return its text without the stop token; see ``message``."""
        ended = bool(ids) and ids[-1] in stops
        kept = list(ids[:-1] if ended else ids)
        # A model may declare ends that its template does not write: they stand for the one that it writes.
        last = () if self._manners.closed else ("",)
        self._endings = (self._decode(ids[-1:]), self._decode(stops[:1]), *last) if ended else ("",)
        text = self._decode(kept)
        read = self._format.parse_for(self._begun + text, self._specs)
        self.message = unique_ids(read, self._call_ids)
        self._unanswered = list(self.message.tool_calls)
        self._completions.append(_Completion(len(self._history), kept, self._begun))
        if self._manners.answers == "calls":
            self._history.append(self._apart(self.message))
        else:
            written = self._as_written(kept)
            self._history.append(self._manners.said(written, self._begun))
            self._rendered += written
        return text

    def encode(self, text: str, words: str = "") -> list[int]:
        """Return the ids of a completion's text, special tokens recognised.

        Args:
            text: as a tool format writes a message.
            words: what the message itself says; if it spells a special token, none of ``text`` is recognised.
        """
        quoted = self._quoting.quote(words) != words
        return self._quoting.encode(self._quoting.quote(text) if quoted else text)

    def _heard(self, message: Message) -> Entry:
        """Return the entry of a message of the environment; an assistant's is an example, with its calls."""
        if message.role == "assistant" and message.tool_calls:
            message = unique_ids(message, self._call_ids)
            self._unanswered = list(message.tool_calls)
            if self._manners.answers == "calls":
                return self._apart(message)
            text = self._format.render_for(message, self._specs)
            return Entry(role="assistant", content=self._quoting.quote(text))
        content = self._quoting.quote(self._structure.broken(message.content))
        # Answers come in the order of the calls, whatever ids the environment knows them by.
        answers = message.role == "tool" and bool(self._unanswered)
        call = self._unanswered.pop(0) if answers else None
        return Entry(
            role=message.role,
            content=content,
            call_id=call.id if call else "",
            name=self._quoting.quote(call.name) if call else "",
        )

    def _apart(self, message: Message) -> Entry:
        """Return the entry of a message whose thoughts and calls are given apart; none of it spells a special."""
        thought = _THOUGHT.match(message.content)
        words = message.content[thought.end() :].strip() if thought else message.content
        calls = tuple(
            ToolCall(name=self._quoted(call.name), arguments=self._quoted(call.arguments), id=call.id)
            for call in message.tool_calls
        )
        return Entry(
            role="assistant",
            content=self._quoted(words),
            thought=self._quoted(thought[1]) if thought else "",
            calls=calls,
        )

    def _quoted(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._quoting.quote(value)
        if isinstance(value, dict):
            return {self._quoting.quote(key): self._quoted(inner) for key, inner in value.items()}
        return [self._quoted(inner) for inner in value] if isinstance(value, list) else value

    def _added(self, text: str) -> str | None:
        """Return what ``text`` adds to what the model has seen; ``None`` if it rewrites that."""
        if self._manners.answers == "calls" and self._completions:
            return self._behind_calls(text)
        continued = (end for end in self._endings if text.startswith(self._rendered + end))
        end = next(continued, None)
        return None if end is None else text[len(self._rendered + end) :]

    def _behind_calls(self, text: str) -> str | None:
        """Return what ``text`` adds behind a completion that the template writes in its own way.

        The model goes on from what it sampled; how the template would have spelt it makes no difference.
        """
        behind = self._completions[-1].place + 1
        closed = self._manners.render(self._history[:behind], self._tools, generate=False)
        if not (closed.startswith(self._rendered) and text.startswith(closed)):
            return None
        turn, rest = closed[len(self._rendered) :], text[len(closed) :]
        for end in filter(None, self._endings):
            before, found, after = turn.rpartition(end)
            if found and not after.strip() and before:
                return after + rest
            if rest.startswith(end):
                return rest.removeprefix(end)
        return rest

    def _anew(self, text: str) -> list[int]:
        """Return the ids of a conversation rendered as ``text``, those that were sampled as they were."""
        if self._manners.answers == "calls":
            return self._quoting.encode(text)
        history = list(self._history)
        written: list[str] = []
        for index, made in enumerate(self._completions):
            entry = history[made.place]
            whole = bool(made.begun) and entry.content.startswith(made.begun)
            written.append(entry.content.removeprefix(made.begun) if whole else entry.content)
            # What is left of a text whose thoughts are given apart is not what was sampled.
            if not entry.thought:
                framed = self._quoting.frame(written[-1], index)
                history[made.place] = dataclasses.replace(entry, content=made.begun * whole + framed)
        marked = self._manners.render(history, self._tools)
        # Where the marks change what the template does, nothing tells which text is whose.
        if self._quoting.unframe(marked) != text:
            return self._quoting.encode(text)
        ids: list[int] = []
        for piece, number in self._quoting.pieces(marked):
            same = number is not None and piece == written[number]
            ids += self._completions[number].ids if number is not None and same else self._quoting.encode(piece)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _describe_tools(self) -> None:
        if self._history and self._history[0].role == "system":
            system = self._history[0]
            self._history[0] = dataclasses.replace(system, content=f"{system.content}\n\n{self._described}")
        else:
            self._history.insert(0, Entry(role="system", content=self._described))

    def _as_written(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids; special tokens that are only spelt are quoted."""
        parts = []
        for special, piece in itertools.groupby(ids, self._quoting.special_ids.__contains__):
            text = self._decode(list(piece))
            parts.append(text if special else self._quoting.quote(text))
        return "".join(parts)


def _as_openai(spec: ToolSpec) -> dict[str, Any]:
    body = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": body}
