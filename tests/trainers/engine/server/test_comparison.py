"""What a server reports is compared with one plain forward pass."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from envgym_trainers.engine.server.comparison import PROBE, compare, probe_ids
from envgym_trainers.engine.server.dialect import FinishReason, TokenReply
from envgym_trainers.models.language_model import LanguageModel


def _reply(language_model: LanguageModel, prompt: list[int], temperature: float) -> TokenReply:
    """Return a greedy continuation with its log-probs at ``temperature``, token by token."""
    ids: list[int] = []
    values = []
    for _ in range(5):
        with torch.no_grad():
            logits = language_model.model(input_ids=torch.tensor([prompt + ids])).logits[0, -1].double()
        ids.append(int(logits.argmax()))
        values.append(float(torch.log_softmax(logits / temperature, dim=-1)[ids[-1]]))
    return TokenReply(ids=ids, logprobs=values, end=FinishReason.LENGTH, spans=())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_equal_weights_agree_and_log_probs_before_temperature_are_told_apart(
    language_model: LanguageModel, temperature: float
) -> None:
    prompt = probe_ids(language_model, seed=1)
    found = compare(language_model, prompt, _reply(language_model, prompt, temperature), 0.5)
    assert (found.gap < 1e-5) == (temperature == 0.5)
    assert (found.gap_before_temperature < 1e-5) == (temperature == 1.0)


def test_the_gap_is_the_mean_in_nats(language_model: LanguageModel) -> None:
    prompt = probe_ids(language_model, seed=1)
    true = _reply(language_model, prompt, 1.0)
    off = [value + (0.5 if i == 2 else 0.0) for i, value in enumerate(true.logprobs)]
    found = compare(language_model, prompt, dataclasses.replace(true, logprobs=off), 1.0)
    assert math.isclose(found.gap, 0.5 / 5, abs_tol=1e-5)


def test_a_prompt_leaves_room_for_the_tokens_that_are_sampled(language_model: LanguageModel) -> None:
    narrow = dataclasses.replace(language_model, context=20)
    ids = probe_ids(narrow, seed=0)
    assert 1 <= len(ids) <= 20 - PROBE.max_tokens
    assert not set(ids) & set(narrow.stop_ids)
