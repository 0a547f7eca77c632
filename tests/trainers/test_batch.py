"""Samples are validated, padding is inert, and packing loses nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym_trainers.batch import collate, micro_batches


def test_collate_pads_on_the_right(make_sample):
    """Every tensor is [B, T]; padding is unattended, untrained and carries no log-prob."""
    batch = collate([(make_sample([0, 1]), make_sample([0, 0, 1, 1], advantage=-2.0))], pad_id=96)
    assert batch.ids[0, 2:].tolist() == [96, 96]
    assert batch.attention.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.mask.tolist() == [[False, True, False, False], [False, False, True, True]]
    assert batch.behaviour_logprobs.isnan().tolist() == [
        [True, False, True, True],
        [True, True, False, False],
    ]
    assert batch.advantages.tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -2.0, -2.0]]
    assert batch.unit.tolist() == [0, 0]
    assert batch.old_logprobs is None
    assert batch.to("meta").ids.device.type == "meta"


def test_optional_logprobs_come_from_all_samples_or_none(make_sample):
    """A batch in which only some samples carry old log-probs is refused."""
    with_old = make_sample([0, 1], old_logprobs=torch.zeros(2))
    old = collate([(with_old,), (with_old,)], pad_id=0).old_logprobs
    assert old is not None
    assert old.tolist() == [[0.0, 0.0]] * 2
    with pytest.raises(ValueError, match="1 of 2 samples carry no old_logprobs"):
        collate([(with_old,), (make_sample([0, 1]),)], pad_id=0)
    with pytest.raises(ValueError, match="empty"):
        collate([], pad_id=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.tensor([True, True])}, "position 0"),
        ({"mask": torch.tensor([False, False])}, "at least one"),
        ({"mask": torch.tensor([0, 1])}, "bool"),
        ({"ids": torch.tensor([1, 2], dtype=torch.int32)}, "int64"),
        ({"logprobs": torch.zeros(3)}, "logprobs must be 1-D of length 2"),
        ({"old_logprobs": torch.zeros(1, 2)}, "old_logprobs must be 1-D"),
        ({"advantages": torch.tensor([0.0, torch.nan])}, "finite"),
    ],
)
def test_malformed_sample_is_refused(make_sample, change, message):
    """What cannot be trained on is refused where it is made."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make_sample([0, 1]), **change)


@settings(deadline=None, max_examples=50)
@given(
    units=st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=4), max_size=20), budget=st.integers(1, 120)
)
def test_micro_batches_keep_every_unit_whole_and_within_the_budget(make_sample, units, budget):
    """Packs partition the units, the longest first; only a pack of one unit may exceed the padded budget."""
    made = [tuple(make_sample([0] * (n - 1) + [1]) for n in lengths) for lengths in units]
    packs = micro_batches(made, budget)
    assert sorted(id(unit) for pack in packs for unit in pack) == sorted(id(unit) for unit in made)
    widths = [max(map(len, unit)) for pack in packs for unit in pack]
    assert widths == sorted(widths, reverse=True)
    for pack in packs:
        rows = [sample for unit in pack for sample in unit]
        assert len(pack) == 1 or len(rows) * max(map(len, rows)) <= budget


def test_the_rows_of_a_unit_stand_together_in_its_order(make_sample):
    pair, one = (make_sample([0, 1], seed=1), make_sample([0, 1, 1], seed=2)), (make_sample([0, 1], seed=3),)
    batch = collate([pair, one], pad_id=0)
    assert batch.unit.tolist() == [0, 0, 1]
    assert batch.ids[:, :2].tolist() == [s.ids[:2].tolist() for s in (*pair, *one)]


def test_micro_batches_refuse_an_empty_budget(make_sample):
    """A budget of no tokens is an error, not an endless list."""
    with pytest.raises(ValueError, match="positive"):
        micro_batches([(make_sample([0, 1]),)], 0)
