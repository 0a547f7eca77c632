"""Special tokens of a tokenizer: those that end a turn, and all that text must not spell."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from envgym.errors import UserError

__all__ = ["special_tokens", "turn_ends"]


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids that end a turn: the template's own after an assistant, then the end-of-sequence token.

    Raises:
        UserError: the tokenizer has neither, so that no turn would end.
    """
    marker = "\u2063content\u2063"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": marker}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    closing: list[int] = tokenizer.encode(text.partition(marker)[2], add_special_tokens=False)
    special = {tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer)}
    ends = [i for i in closing[:1] if i in special]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends.append(int(tokenizer.eos_token_id))
    if not ends:
        raise UserError(
            "the tokenizer has no token that ends a turn: it needs an eos_token, or a chat template that closes "
            "an assistant's message with a special token"
        )
    return tuple(ends)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return every token that text must not spell: the named ones and those only marked special."""
    marked = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *marked})
