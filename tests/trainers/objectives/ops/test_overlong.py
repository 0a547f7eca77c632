"""Soft overlong punishment: hand values of the paper's equation 13."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from envgym_trainers.objectives.ops.overlong import SoftOverlong


def test_hand_values():
    """Flat, slope of a quarter per token, floor."""
    penalty = SoftOverlong(max_tokens=10, cache_tokens=4).penalty(torch.tensor([0, 6, 7, 8, 10, 11, 10**6]))
    assert penalty.tolist() == [0, 0, -0.25, -0.5, -1, -1, -1]


def test_defaults_are_the_papers():
    """20480 tokens, the last 4096 of them a slope."""
    penalty = SoftOverlong().penalty(torch.tensor([16384, 18432, 20480]))
    assert penalty.tolist() == [0, -0.5, -1]


def test_slope_longer_than_the_allowance_is_refused():
    """It would punish an empty answer."""
    with pytest.raises(ValidationError, match="exceeds max_tokens"):
        SoftOverlong(max_tokens=100)
