"""``choose`` draws from softmax(logits/T), and from nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envgym_trainers.engine.interface import SamplingParams
from envgym_trainers.engine.sampling import choose


def at(*temperatures: float) -> list[SamplingParams]:
    return [SamplingParams(max_tokens=1, temperature=temperature) for temperature in temperatures]


_LAST = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature: float) -> None:
    """Chi-square with 7 degrees of freedom over 20 000 fixed draws; 24.3 is its 99.9 % point."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, 0.0, -0.5, -1.0, -2.0])
    draws = 20_000
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs = choose(logits.expand(draws, -1), uniform, at(temperature) * draws)
    table = torch.log_softmax(logits / temperature, -1)
    torch.testing.assert_close(logprobs, table[tokens])
    expected = table.exp() * draws
    found = torch.bincount(tokens, minlength=8)
    assert float(((found - expected) ** 2 / expected).sum()) < 24.3


def test_temperature_zero_is_greedy_beside_rows_that_sample() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    tokens, logprobs = choose(logits, torch.tensor([0.999, 0.999]), at(0.0, 1.0))
    assert tokens.tolist() == [1, 2]
    torch.testing.assert_close(logprobs, torch.log_softmax(logits, -1)[[0, 1], tokens])


@given(
    st.lists(st.sampled_from([-math.inf, -30.0, 0.0, 5.0]), min_size=2, max_size=9).filter(
        lambda row: max(row) > -math.inf
    ),
    st.sampled_from([0.0, 0.25, 0.5, 1 - 1e-9, _LAST]),
)
def test_an_impossible_token_is_never_drawn(row: list[float], uniform: float) -> None:
    """Not at either end of [0, 1) either, where rounding could step past the last possible one."""
    tokens, logprobs = choose(torch.tensor([row]), torch.tensor([uniform], dtype=torch.float64), at(1.0))
    assert row[int(tokens)] > -math.inf
    assert bool(torch.isfinite(logprobs).all())


def test_rare_tokens_of_a_large_vocabulary_can_be_drawn() -> None:
    """Between two neighbouring float32 numbers near 1 lie the last ten tokens: the draw is in float64."""
    logits = torch.zeros(1, 200_000)
    logits[0, 0] = 30.0
    tail = 199_990 / 200_000
    rest = float(torch.softmax(logits.double(), -1)[0, 1:].sum())
    uniform = torch.tensor([1 - rest * (1 - tail)], dtype=torch.float64)
    tokens, _ = choose(logits, uniform, at(1.0))
    assert int(tokens) == pytest.approx(199_990, abs=2)
