"""DAPO: its aggregation, its shaping and what it needs."""

from __future__ import annotations

import math

import pytest
import torch

from envgym_trainers.batch import Outputs, as_units, collate
from envgym_trainers.objectives.dapo import DAPO
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling
from envgym_trainers.objectives.ops.overlong import SoftOverlong
from envgym_trainers.objectives.ops.reduction import Totals


def test_every_token_weighs_the_same(make_sample):
    """On policy the loss is −ΣnA/Σn: one token at +1 and nine at −½."""
    samples = [make_sample([0, 1], advantage=1.0), make_sample([0, *[1] * 9], advantage=-0.5)]
    units = as_units(samples)
    batch = collate(units, pad_id=0)
    logprobs = torch.zeros(batch.ids.shape)
    loss, _ = DAPO().loss(batch, Outputs(logprobs=logprobs, entropy=logprobs), Totals.of(units))
    assert loss.item() == pytest.approx(-(1.0 - 4.5) / 10)


def test_reward_is_plus_minus_one_plus_the_overlong_penalty():
    """A solved episode at the end of its allowance earns as little as the middle between right and wrong."""
    objective = DAPO(overlong=SoftOverlong(max_tokens=10, cache_tokens=4))
    scores = torch.tensor([1.0, 0.0, 1.0, math.nan], dtype=torch.float64)
    lengths = torch.tensor([3, 8, 10, 3])
    assert objective.shape(scores, lengths).tolist() == pytest.approx([1.0, -1.5, 0.0, math.nan], nan_ok=True)
    plain = DAPO(overlong=None).shape(scores, lengths).tolist()
    assert plain == pytest.approx([1.0, -1.0, 1.0, math.nan], nan_ok=True)


def test_length_separates_what_accuracy_does_not():
    """The penalty alone gives a solved group advantages: why sampling looks at the unshaped score."""
    objective = DAPO(overlong=SoftOverlong(max_tokens=10, cache_tokens=4))
    rewards = objective.shape(torch.ones(2, dtype=torch.float64), torch.tensor([3, 10]))
    short, long = objective.advantages(rewards).tolist()
    assert short > 0 > long


def test_needs_are_declared():
    """Dynamic sampling is on by default; no reference model."""
    needs = DAPO().needs()
    assert needs.dynamic_sampling == DynamicSampling()
    assert not needs.auxiliary
    assert DAPO(dynamic_sampling=None).needs().dynamic_sampling is None
