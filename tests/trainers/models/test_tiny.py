"""The small model made from nothing: a tokenizer that loses no text and lets words be copied."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from envgym.errors import RecipeError
from envgym_trainers.models.load import NewModelConfig
from envgym_trainers.models.tiny import make_tokenizer, new_model

_TOKENIZER = make_tokenizer(["Ada Lovelace was born in 1815 in London.", '{"name":"lookup"}'] * 3, 400)
_WORD = st.text(alphabet="abcdeLondv", min_size=1, max_size=8)
_NUMBER = st.integers(0, 99999).map(str)


@given(st.text())
def test_any_text_survives(text: str) -> None:
    ids = _TOKENIZER.encode(text, add_special_tokens=False)
    assert _TOKENIZER.decode(ids) == text


@given(st.lists(st.one_of(_WORD, _NUMBER), min_size=1, max_size=5), st.sampled_from([" ", "\n", ": ", '","']))
def test_a_word_has_the_same_tokens_wherever_it_stands(words: list[str], between: str) -> None:
    """Copying a name or a number never needs another spelling of it."""
    alone = [_TOKENIZER.encode(word, add_special_tokens=False) for word in words]
    together = _TOKENIZER.encode(between.join(words), add_special_tokens=False)
    places = 0
    for ids in alone:
        while together[places : places + len(ids)] != ids:
            places += 1
            assert places < len(together)
        places += len(ids)


@given(_NUMBER)
def test_numbers_are_split_into_digits(number: str) -> None:
    assert len(_TOKENIZER.encode(number, add_special_tokens=False)) == len(number)


def test_tags_are_single_tokens_that_decode_as_text() -> None:
    ids = _TOKENIZER.encode("<answer>Ada</answer>", add_special_tokens=False)
    assert _TOKENIZER.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<answer>", "</answer>"]
    assert _TOKENIZER.decode(ids, skip_special_tokens=True) == "<answer>Ada</answer>"


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    _TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Ada <tool_call>\n  1815é€</tool_call><|end|>"
    assert loaded.encode(text) == _TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == _TOKENIZER.decode(_TOKENIZER.encode(text))
    assert set(loaded.all_special_tokens) == set(_TOKENIZER.all_special_tokens)
    assert loaded.chat_template == _TOKENIZER.chat_template


def test_the_vocabulary_has_no_more_tokens_than_asked() -> None:
    assert len(make_tokenizer(["all kinds of words " * 3, "another text"], 300)) <= 300


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(RecipeError, match="must be a multiple of 2 \\* heads = 12"):
        new_model(NewModelConfig(hidden_size=16, heads=6), [""], 64)


def test_equal_seeds_give_equal_weights() -> None:
    config = NewModelConfig(vocabulary=300, hidden_size=16, layers=1, heads=2)
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(new_model(config, ["a b"], 64).model.state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
