"""What processes say to each other arrives as it was, and units are dealt whole and evenly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from envgym_trainers.batch import Sample, as_units
from envgym_trainers.distributed.balance import deal
from envgym_trainers.distributed.messages import Order, decode, encode


def test_a_message_arrives_as_it_was(make_sample: Callable[..., Sample]) -> None:
    """Every column of a sample, NaN included, the structure of units, and numbers that JSON has no name for."""
    whole = make_sample([0, 1, 1], values=torch.tensor([math.nan, 1.0, 2.0]), versions=torch.tensor([0, 1, 2]))
    units = [(whole, make_sample([0, 1], seed=1)), (make_sample([0, 0, 1], seed=2),)]
    found = decode(encode(Order(name="update", values={"limit": math.inf, "step": 3}, units=units)))
    assert (found.name, found.values) == ("update", {"limit": math.inf, "step": 3})
    assert [len(unit) for unit in found.units] == [2, 1]
    for unit, arrived in zip(units, found.units, strict=True):
        for sample, other in zip(unit, arrived, strict=True):
            for field in dataclasses.fields(Sample):
                one, two = getattr(sample, field.name), getattr(other, field.name)
                if isinstance(one, torch.Tensor):
                    torch.testing.assert_close(two, one, rtol=0, atol=0, equal_nan=True)
                else:
                    assert one == two


@given(lengths=st.lists(st.integers(2, 40), max_size=40), size=st.integers(1, 8), budget=st.integers(10, 200))
def test_every_unit_is_dealt_once_and_micro_batches_evenly(lengths: list[int], size: int, budget: int) -> None:
    """No process has far more than another."""
    samples = [
        Sample(
            ids=torch.zeros(n, dtype=torch.int64),
            mask=torch.arange(n) > 0,
            logprobs=torch.zeros(n),
            group=str(i),
            version=0,
        )
        for i, n in enumerate(lengths)
    ]
    shares = deal(as_units(samples), budget, size)
    assert sorted(i for share in shares for i in share) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in share) for share in shares]
    # A micro-batch has at most the budget, or an even part, or its one unit, and pads each to the longest.
    assert max(loads) - min(loads) <= max([sum(lengths) / size, *lengths]) + budget


def test_one_process_gets_everything_in_order() -> None:
    assert deal([], 10, 1) == [[]]
