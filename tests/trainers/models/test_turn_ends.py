"""A turn ends with what the chat template writes after an assistant, and with the end of the sequence."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from envgym.errors import UserError
from envgym_trainers.models.tiny import make_tokenizer
from envgym_trainers.models.turn_ends import special_tokens, turn_ends

_CLOSED = "{% for message in messages %}{{ message.role }}: {{ message.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Its role marker is a special token without a named part, as in Llama 3."""
    tokenizer = make_tokenizer(["hello there"], 300)
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


def test_the_templates_own_end_comes_first(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = _CLOSED
    assert tokenizer.convert_ids_to_tokens(list(turn_ends(tokenizer))) == ["<|im_end|>", "<|end|>"]


def test_a_tokenizer_without_any_end_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = _CLOSED.replace("<|im_end|>", "")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no token that ends a turn"):
        turn_ends(tokenizer)


def test_tokens_that_are_only_marked_special_count(tokenizer: PreTrainedTokenizerFast) -> None:
    found = special_tokens(tokenizer)
    assert "<|im_end|>" in found
    assert "<|pad|>" in found
    assert "<tool_call>" not in found
