"""Render messages to token ids, turn by turn, without ever re-tokenising sampled text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from envgym.chat.tool_formats import ToolFormat
from envgym.records import Message, ToolSpec
from envgym_trainers.models.turn_ends import special_tokens, structure

__all__ = ["Conversation"]


class Conversation:
    """One conversation rendered with the tokenizer's chat template.

    The ids of turn k+1 continue those of turn k as long as the template leaves history alone. If it rewrites
    history (drops earlier reasoning, say), the whole prompt is rendered anew and the turn is marked ``fork``.

    If the template ignores tools, the system message describes them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[ToolSpec], tool_format: ToolFormat
    ) -> None:
        self._tokenizer = tokenizer
        self._structure = structure(tokenizer)
        self._specials = special_tokens(tokenizer)
        self._special_ids = {tokenizer.convert_tokens_to_ids(token) for token in self._specials}
        self._tools: Any = [_as_openai(spec) for spec in tools] or None
        self._described = tool_format.describe(tools) if tools else ""
        self._history: list[dict[str, str]] = []
        self._rendered = ""
        """Text that the model has seen, the sampled text included."""
        self._stop = ""
        """Text of the stop token that ended the last turn, or ``""``."""

    def prompt(self, messages: Sequence[Message]) -> tuple[list[int], bool]:
        """Render ``messages`` to the ids before the next completion.

        Returns:
            the ids, and true if they replace the conversation instead of continuing it.
        """
        first = not self._history
        self._history.extend({"role": m.role, "content": _broken(m.content, self._structure)} for m in messages)
        text = self._render(self._tools)
        if first and self._tools and text == self._render(None):
            self._describe_tools()
            text = self._render(None)
        seen = self._rendered + self._stop
        fork = bool(self._rendered) and not text.startswith(seen)
        new = text if fork else text[len(seen) :]
        self._rendered, self._stop = text, ""
        return self.encode(new), fork

    def sampled(self, ids: Sequence[int], stops: Sequence[int]) -> str:
        """Record a completion and return its text without the stop token."""
        ended = bool(ids) and ids[-1] in stops
        text = self._decode(ids[:-1] if ended else ids)
        self._stop = self._decode(ids[-1:]) if ended else ""
        self._history.append({"role": "assistant", "content": self._as_written(ids[:-1] if ended else ids)})
        self._rendered += text
        return text

    def encode(self, text: str) -> list[int]:
        """Return the token ids of template or model text, special tokens recognised."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _render(self, tools: Any) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                self._history, tools=tools, tokenize=False, add_generation_prompt=True
            )
        )

    def _describe_tools(self) -> None:
        if self._history and self._history[0]["role"] == "system":
            self._history[0]["content"] += "\n\n" + self._described
        else:
            self._history.insert(0, {"role": "system", "content": self._described})

    def _as_written(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids, such that rendering it again gives no special token beyond theirs.

        Where a policy spelt one with ordinary tokens, that text is broken up, and the next turn is a fork.
        """
        parts = []
        for special, piece in itertools.groupby(ids, self._special_ids.__contains__):
            text = self._decode(list(piece))
            parts.append(text if special else _broken(text, self._specials))
        return "".join(parts)


def _broken(content: str, tokens: Sequence[str]) -> str:
    """Break up ``tokens`` in a text, so that it can neither end a turn, open a role nor close an answer."""
    for token in tokens:
        while token in content:
            content = content.replace(token, token[0] + " " + token[1:] if len(token) > 1 else "")
    return content


def _as_openai(spec: ToolSpec) -> dict[str, Any]:
    body = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": body}
