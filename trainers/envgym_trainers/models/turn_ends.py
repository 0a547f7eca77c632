"""Tokens that shape a conversation: those that end a turn, and the text that messages must not spell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from envgym.errors import UserError

__all__ = ["special_tokens", "structure", "turn_ends"]

_MARKER = "\u2063content\u2063"
_TAG = re.compile(r"</?[A-Za-z][\w-]*>|<\|[^|<>]+\|>|\[/?[A-Z][A-Z_]*\]")
"""Tags as chat templates write them: ``</tool_response>``, ``<|tool|>``, ``[/INST]``."""


def turn_ends(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None = None) -> tuple[int, ...]:
    """Return the ids that end a turn: the template's own after an assistant, then every one that is declared.

    Tokenizer, model and generation configuration may each declare some. An id that is an ordinary word of the
    vocabulary is left out: configurations of unrelated models are full of default numbers.

    Raises:
        UserError: there is none, so that no turn would end.
    """
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": _MARKER}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    closing: list[int] = tokenizer.encode(text.partition(_MARKER)[2], add_special_tokens=False)
    special = {tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer)}
    added = special | set(tokenizer.added_tokens_decoder)
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    declared = [] if model is None else [i for i in _declared(model) if i in added]
    ends = tuple(dict.fromkeys([*(i for i in closing[:1] if i in special), *own, *declared]))
    if not ends:
        raise UserError(
            "the tokenizer has no token that ends a turn: it needs an eos_token, or a chat template that closes "
            "an assistant's message with a special token"
        )
    return ends


def _declared(model: PreTrainedModel) -> Iterator[int]:
    for holder in (getattr(model, "generation_config", None), model.config, model.config.get_text_config()):
        ids: Any = getattr(holder, "eos_token_id", None)
        yield from ids if isinstance(ids, list | tuple) else [] if ids is None else [ids]


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return every token that text must not spell: the named ones and those only marked special."""
    marked = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *marked})


def structure(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what the text of environments must not spell: special tokens, and the tags around messages.

    In many templates the tags around a tool's answer are ordinary text, which a tool's answer could close.
    """
    found = set(special_tokens(tokenizer))
    for role in ("system", "user", "tool"):
        for start in ([], [{"role": "user", "content": "hi"}], [{"role": "system", "content": "hi"}]):
            turns = [*start, {"role": role, "content": _MARKER}]
            try:
                text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
            except (TemplateError, ValueError, TypeError):  # the template has no such role, or not in this place
                continue
            found |= set(_TAG.findall(text.replace(_MARKER, " ")))
    return sorted(found)
