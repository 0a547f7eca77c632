"""A turn ends with what the chat template writes after an assistant, and with the end of the sequence."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


@pytest.fixture
def model() -> LlamaForCausalLM:
    """It declares no end; 400 ids, more than the tokenizer has."""
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("where", ["generation configuration", "configuration"])
def test_every_declared_end_counts(
    tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM, where: str, several: bool
) -> None:
    pad = int(tokenizer.convert_tokens_to_ids("<|pad|>"))
    holder = model.generation_config if where == "generation configuration" else model.config
    holder.eos_token_id = [int(tokenizer.eos_token_id), pad] if several else pad
    assert turn_ends(tokenizer, model) == (tokenizer.eos_token_id, pad)
    holder.eos_token_id = None
    assert turn_ends(tokenizer, model) == (tokenizer.eos_token_id,)


def test_an_ordinary_word_is_an_end_only_where_it_was_declared_as_one(
    tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM
) -> None:
    """``LlamaConfig`` says 2 by default, whatever the tokenizer; a generation_config.json means what it says."""
    word = tokenizer.encode("h", add_special_tokens=False)[0]
    model.config.eos_token_id = word
    model.generation_config = GenerationConfig.from_model_config(model.config)
    assert turn_ends(tokenizer, model) == (tokenizer.eos_token_id,)
    model.generation_config = GenerationConfig(eos_token_id=[word])
    assert turn_ends(tokenizer, model) == (tokenizer.eos_token_id, word)


def test_an_end_that_the_tokenizer_does_not_have_is_none(
    tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM
) -> None:
    """It is never sampled, and has no text; nor has one beyond the model."""
    model.generation_config = GenerationConfig(eos_token_id=[399, 10**9])
    assert turn_ends(tokenizer, model) == (tokenizer.eos_token_id,)


def test_an_end_after_white_space_is_found(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = _CLOSED.replace("<|im_end|>", "\n<|im_end|>")
    tokenizer.eos_token = None
    assert tokenizer.convert_ids_to_tokens(list(turn_ends(tokenizer))) == ["<|im_end|>"]


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
