"""The context is the model's own, as far as memory goes, and a user's choice is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from envgym_trainers.models import context, load
from envgym_trainers.models.context import choose_context
from envgym_trainers.models.language_model import LanguageModel


def model(**settings: Any) -> LlamaForCausalLM:
    """One layer of two heads of size 8, which share one head of keys: 64 bytes of keys and values per token."""
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = {"vocab_size": 8, "num_key_value_heads": 1, "max_position_embeddings": 4096, **sizes, **settings}
    return LlamaForCausalLM(LlamaConfig(**made))


def with_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(context, "_memory", lambda device: size)


def test_a_model_has_its_own_context_where_memory_is_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 2**40)
    assert choose_context(model(), None, 64) == 4096
    assert choose_context(model(max_position_embeddings=131_072), None, 64) == 131_072


def test_a_quarter_of_the_memory_bounds_it_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 conversations of 64 bytes a token: 4,096 bytes for every token of context."""
    with_memory(monkeypatch, 4 * 4096 * 1000)
    assert choose_context(model(), None, 64) == 960, "1,000 in whole steps of 64"
    assert choose_context(model(), None, 32) == 1984
    assert choose_context(model(num_hidden_layers=2), None, 32) == 960
    assert choose_context(model().to(torch.bfloat16), None, 64) == 1984


def test_there_is_room_for_a_short_conversation_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 1)
    assert choose_context(model(), None, 64) == 512
    assert choose_context(model(max_position_embeddings=320), None, 64) == 320


def test_a_choice_is_kept_up_to_the_model_s_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 1)
    assert choose_context(model(), 3000, 64) == 3000
    assert choose_context(model(), 5000, 64) == 4096


@pytest.mark.parametrize(("stated", "limit"), [(None, 256), (100, 100), (4096, 256)])
def test_a_turn_is_as_long_as_the_model_says_or_as_there_is_room(
    make_language_model: Callable[[], LanguageModel], stated: int | None, limit: int
) -> None:
    language_model = replace(make_language_model(), context=256)
    generation: Any = language_model.model.generation_config
    generation.max_new_tokens = stated
    assert language_model.turn_limit == limit


def test_libraries_draw_no_bars_while_a_model_is_read_and_may_afterwards(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with load._quietly():
        assert sum(tqdm([1, 2, 3])) == 6
    assert capsys.readouterr().err == ""
    assert sum(tqdm([1, 2, 3], file=sys.stderr, mininterval=0)) == 6
    assert "3/3" in capsys.readouterr().err
