"""Special tokens of a tokenizer: those that end a turn, and all that text must not spell."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from envgym.errors import UserError

__all__ = ["special_ids", "special_tokens", "turn_ends"]

_MARKER = "\u2063content\u2063"


def turn_ends(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None = None) -> tuple[int, ...]:
    """Return the ids that end a turn: the template's own after an assistant, then every one that is declared.

    Tokenizer, model and generation configuration may each declare some. Ids that the tokenizer does not have are
    left out, as they are never sampled. What a model's configuration declares is left out where it is an ordinary
    word, because configurations made in code are full of another model's numbers.

    Raises:
        UserError: there is none, so that no turn would end.
    """
    closing: list[int] = tokenizer.encode(_closing(tokenizer), add_special_tokens=False)
    special = special_ids(tokenizer).values()
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    declared = [] if model is None else _declared(model, {*special, *tokenizer.added_tokens_decoder})
    known = set(tokenizer.get_vocab().values())
    first = [i for i in closing if i in special][:1]
    ends = tuple(dict.fromkeys(i for i in (*first, *own, *declared) if i in known))
    if not ends:
        raise UserError(
            "the tokenizer has no token that ends a turn: it needs an eos_token, or a chat template that closes "
            "an assistant's message with a special token"
        )
    return ends


def _closing(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the template writes after an assistant's text; templates of images take text in parts alone."""
    for parts in (False, True):
        said = [[{"type": "text", "text": text}] if parts else text for text in ("hi", _MARKER)]
        roles = ("user", "assistant")
        turns: Any = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
        try:
            _, found, after = str(tokenizer.apply_chat_template(turns, tokenize=False)).partition(_MARKER)
        except (TemplateError, TypeError, ValueError):
            continue
        if found:
            return after
    return ""


def _declared(model: PreTrainedModel, added: Container[int]) -> Iterator[int]:
    """Yield the ids that a model declares; outside its generation configuration only those in ``added``."""
    generation: Any = getattr(model, "generation_config", None)
    written = generation is not None and not generation._from_model_config
    for holder in (generation, model.config, model.config.get_text_config()):
        ids: Any = getattr(holder, "eos_token_id", None)
        for i in ids if isinstance(ids, list | tuple) else [] if ids is None else [ids]:
            if i in added or (holder is generation and written):
                yield int(i)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return every token that text must not spell: the named ones and those only marked special."""
    marked = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *marked})


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the id of every special token by its text; a name without a token of its own has none."""
    vocabulary = tokenizer.get_vocab()
    return {text: vocabulary[text] for text in special_tokens(tokenizer) if text in vocabulary}
