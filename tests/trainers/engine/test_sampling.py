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


def reference(logits: list[float], params: SamplingParams) -> list[float]:
    """The truncated distribution, written down plainly."""
    tempered = [value / params.temperature for value in logits]
    order = sorted(range(len(logits)), key=lambda i: (-tempered[i], i))
    kept = order[: params.top_k or len(order)]
    weights = {i: math.exp(tempered[i] - tempered[order[0]]) for i in kept}
    total = sum(weights.values())
    before, nucleus = 0.0, []
    for i in kept:
        if nucleus and params.top_p < 1 and before >= params.top_p:
            break
        nucleus.append(i)
        before += weights[i] / total
    chosen = [i for i in nucleus if weights[i] >= params.min_p]
    total = sum(weights[i] for i in chosen)
    return [weights[i] / total if i in chosen else 0.0 for i in range(len(logits))]


ALL = st.builds(
    SamplingParams,
    max_tokens=st.just(1),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 3, 50]),
    # Numbers that no sum of probabilities hits, where rounding would decide.
    top_p=st.sampled_from([0.1234567, 0.5678912, 0.9123456, 1.0]),
    min_p=st.sampled_from([0.0, 0.0123456, 0.3456789]),
)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.7, 2.0]), min_size=6, max_size=6), ALL),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.77, _LAST]),
)
def test_draws_and_logprobs_are_those_of_the_plain_truncated_distribution(
    rows: list[tuple[list[float], SamplingParams]], uniform: float
) -> None:
    """Rows of one batch may be cut differently; equal logits stay in the order of their ids."""
    draws = torch.full((len(rows),), uniform, dtype=torch.float64)
    tokens, logprobs = choose(torch.tensor([row for row, _ in rows]), draws, [params for _, params in rows])
    for (row, params), token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
        expected = reference(row, params)
        assert expected[token] > 0
        assert math.exp(logprob) == pytest.approx(expected[token], rel=1e-5)
        before = sum(expected[:token])
        assert before - 1e-6 <= uniform <= before + expected[token] + 1e-6


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({"top_k": 2}, {0: 5 / 8, 1: 3 / 8}),
        ({"top_p": 0.5}, {0: 1.0}),
        ({"top_p": 0.75}, {0: 5 / 8, 1: 3 / 8}),
        ({"top_p": 0.85}, {0: 0.5, 1: 0.3, 2: 0.2}),
        ({"min_p": 0.5}, {0: 5 / 8, 1: 3 / 8}),
        ({"top_k": 2, "top_p": 0.6}, {0: 1.0}),
    ],
)
def test_truncation_by_hand(cut: dict[str, float], kept: dict[int, float]) -> None:
    """Probabilities .5, .3 and .2; top-p counts what top-k left as the whole."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    found = {}
    for i in range(100):
        uniform = torch.tensor([(i + 0.5) / 100], dtype=torch.float64)
        token, logprob = choose(logits, uniform, [SamplingParams(max_tokens=1, **cut)])
        found[int(token)] = math.exp(float(logprob))
    assert found == pytest.approx(kept)


def test_greedy_reports_the_whole_distribution_however_it_is_cut() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    params = SamplingParams(max_tokens=1, temperature=0.0, top_k=1)
    tokens, logprobs = choose(logits, torch.tensor([0.9]), [params])
    assert (int(tokens), float(logprobs)) == (0, pytest.approx(math.log(0.5)))
