"""Render messages to token ids, turn by turn, without ever re-tokenising sampled text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from envgym.chat.tool_formats import ToolFormat
from envgym.records import Message, ToolSpec
from envgym_trainers.chat.quoting import Quoting
from envgym_trainers.chat.structure import Structure

__all__ = ["Conversation"]


class Conversation:
    """One conversation rendered with the tokenizer's chat template.

    The ids of turn k+1 continue those of turn k as long as the template leaves history alone. If it rewrites
    history (drops earlier reasoning, say), the whole prompt is rendered anew and the turn is marked ``fork``;
    completions that it left as they were keep the ids that were sampled.

    No message makes a special token, whatever it spells: the special ids of a prompt are those of the template,
    and those that the policy sampled as such. Nor can the text of environments spell the tags around messages.

    If the template ignores tools, the system message describes them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[ToolSpec], tool_format: ToolFormat
    ) -> None:
        self._tokenizer = tokenizer
        self._structure = Structure.of(tokenizer)
        self._quoting = Quoting.of(tokenizer)
        self._tools: Any = [_as_openai(spec) for spec in tools] or None
        self._described = self._quoting.quote(tool_format.describe(tools)) if tools else ""
        self._history: list[dict[str, str]] = []
        self._completions: list[tuple[int, list[int]]] = []
        """Places in the history of what was sampled, with its ids."""
        self._rendered = ""
        """Text that the model has seen, the sampled text included; special tokens in messages are quoted."""
        self._endings: tuple[str, ...] = ("",)
        """Texts that the template may write for the stop token that ended the last turn."""

    def prompt(self, messages: Sequence[Message]) -> tuple[list[int], bool]:
        """Render ``messages`` to the ids before the next completion.

        Returns:
            the ids, and true if they replace the conversation instead of continuing it.
        """
        first = not self._history
        for message in messages:
            content = self._quoting.quote(self._structure.broken(message.content))
            self._history.append({"role": message.role, "content": content})
        text = self._render(self._history, self._tools)
        if first and self._tools and text == self._render(self._history, None):
            self._describe_tools()
            text = self._render(self._history, None)
        continued = (end for end in self._endings if text.startswith(self._rendered + end))
        end = next(continued, None)
        fork = bool(self._rendered) and end is None
        new = self._anew(text) if fork else self._quoting.encode(text[len(self._rendered + (end or "")) :])
        self._rendered, self._endings = text, ("",)
        return new, fork

    def sampled(self, ids: Sequence[int], stops: Sequence[int]) -> str:
        """Record a completion and return its text without the stop token."""
        ended = bool(ids) and ids[-1] in stops
        kept = list(ids[:-1] if ended else ids)
        # A model may declare ends that its template does not write: they stand for the one that it writes.
        self._endings = (self._decode(ids[-1:]), self._decode(stops[:1])) if ended else ("",)
        written = self._as_written(kept)
        self._completions.append((len(self._history), kept))
        self._history.append({"role": "assistant", "content": written})
        self._rendered += written
        return self._decode(kept)

    def encode(self, text: str, words: str = "") -> list[int]:
        """Return the ids of a completion's text, special tokens recognised.

        Args:
            text: as a tool format writes a message.
            words: what the message itself says; if it spells a special token, none of ``text`` is recognised.
        """
        quoted = self._quoting.quote(words) != words
        return self._quoting.encode(self._quoting.quote(text) if quoted else text)

    def _anew(self, text: str) -> list[int]:
        """Return the ids of a conversation rendered as ``text``, those that were sampled as they were."""
        history = list(self._history)
        for index, (place, _) in enumerate(self._completions):
            framed = self._quoting.frame(history[place]["content"], index)
            history[place] = {**history[place], "content": framed}
        marked = self._render(history, self._tools)
        # Where the marks change what the template does, nothing tells which text is whose.
        if self._quoting.unframe(marked) != text:
            return self._quoting.encode(text)
        ids: list[int] = []
        for piece, number in self._quoting.pieces(marked):
            place, sampled = (-1, []) if number is None else self._completions[number]
            same = place >= 0 and piece == self._history[place]["content"]
            ids += sampled if same else self._quoting.encode(piece)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _render(self, history: list[dict[str, str]], tools: Any) -> str:
        return str(
            self._tokenizer.apply_chat_template(history, tools=tools, tokenize=False, add_generation_prompt=True)
        )

    def _describe_tools(self) -> None:
        if self._history and self._history[0]["role"] == "system":
            self._history[0]["content"] += "\n\n" + self._described
        else:
            self._history.insert(0, {"role": "system", "content": self._described})

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
