"""Aggregation: hand values, and the result does not depend on how the optimizer batch is cut."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from envgym_trainers.objectives.ops.reduction import Totals, sequence_mean, token_mean

VALUES = torch.tensor([[1.0, 2.0, torch.nan], [4.0, 5.0, 6.0]])
MASK = torch.tensor([[True, True, False], [False, False, True]])
ALL = [token_mean, sequence_mean]


def totals(mask: Tensor) -> Totals:
    return Totals(tokens=int(mask.sum()), sequences=len(mask), units=len(mask))


@pytest.mark.parametrize(("aggregate", "expected"), [(ALL[0], 9 / 3), (ALL[1], (1.5 + 6) / 2)])
def test_hand_values(aggregate, expected):
    """Masked tokens 1, 2 and 6 in two sequences; the NaN outside the mask has no effect."""
    assert aggregate(VALUES, MASK, totals(MASK)).item() == pytest.approx(expected)


def test_totals_add_up_over_ranks(make_sample):
    """Totals of two ranks are those of all their units, a pair counting once."""
    one, pair = (make_sample([0, 1, 1]),), (make_sample([0, 0, 1, 0, 1, 1]), make_sample([0, 1]))
    assert Totals.of([one, pair]) == Totals(tokens=6, sequences=3, units=2)
    assert Totals.of([one]) + Totals.of([pair]) == Totals.of([one, pair])


@st.composite
def cut_batches(draw):
    """Values and a ragged mask, and where to cut the rows."""
    rows = draw(st.integers(1, 8))
    row = st.lists(st.booleans(), min_size=5, max_size=5).filter(any)
    mask = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, rows - 1)))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randn(rows, 5, generator=generator, dtype=torch.float64), mask, [0, *cuts, rows]


@pytest.mark.parametrize("aggregate", ALL)
@settings(deadline=None, max_examples=50)
@given(case=cut_batches())
def test_invariant_to_micro_batches(aggregate, case):
    """Shares of any cut add up to the uncut value, and each value keeps its gradient."""
    values, mask, edges = case
    whole, parts = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = aggregate(whole, mask, totals(mask))
    expected.backward()
    shares = [aggregate(parts[a:b], mask[a:b], totals(mask)) for a, b in itertools.pairwise(edges) if a < b]
    sum(shares).backward()
    assert sum(shares).item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(parts.grad, whole.grad, atol=1e-14)


def test_local_token_mean_would_depend_on_the_cut():
    """The control: averaging each micro-batch's own token mean gives another number on ragged rows."""
    local = [token_mean(VALUES[i : i + 1], MASK[i : i + 1], totals(MASK[i : i + 1])) for i in range(2)]
    assert sum(local).item() / 2 != pytest.approx(token_mean(VALUES, MASK, totals(MASK)).item())
