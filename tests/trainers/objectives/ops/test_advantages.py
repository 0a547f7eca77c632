"""Group advantages: hand values, missing members, equal groups."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym_trainers.objectives.ops.advantages import group_centred, group_normalised

NAN = math.nan
rewards_of_a_group = st.lists(st.floats(-10, 10) | st.just(NAN), min_size=1, max_size=12)


def advantages(rewards: list[float]) -> list[float]:
    return group_normalised(torch.tensor(rewards, dtype=torch.float64)).tolist()


def test_hand_values():
    """Mean ¼ and unbiased standard deviation ½."""
    assert advantages([1, 0, 0, 0]) == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3], abs=1e-12)
    assert group_centred(torch.tensor([1.0, 0, 0, 0])).tolist() == [0.75, -0.25, -0.25, -0.25]


def test_missing_member_stays_out_of_the_baseline():
    """Mean ½ and standard deviation √½ come from the two valid members."""
    scale = math.sqrt(0.5) + 1e-4
    assert advantages([1, NAN, 0]) == pytest.approx([0.5 / scale, 0, -0.5 / scale], abs=1e-12)


@pytest.mark.parametrize("rewards", [[], [1.0], [NAN, NAN], [NAN, 3.0, NAN]])
def test_fewer_than_two_valid_members_give_no_signal(rewards):
    """No baseline, no advantage."""
    assert advantages(rewards) == [0.0] * len(rewards)


@pytest.mark.parametrize("rewards", [[1.0] * 8, [0.1 + 0.2, 0.3, 0.3], [1e5, 1e5, NAN], [0.0, 9e-7]])
def test_equal_group_is_exactly_zero(rewards):
    """Rounding residue is not divided by its own standard deviation."""
    assert advantages(rewards) == [0.0] * len(rewards)


def test_infinite_reward_is_refused():
    """An infinity would turn the whole group into NaN."""
    with pytest.raises(ValueError, match="finite"):
        advantages([1.0, math.inf])


@settings(deadline=None, max_examples=50)
@given(rewards_of_a_group)
def test_valid_members_sum_to_zero_and_missing_ones_change_nothing(rewards):
    """Removing the missing members leaves the others' advantages as they were."""
    result = advantages(rewards)
    assert all(math.isfinite(a) for a in result)
    assert sum(result) == pytest.approx(0.0, abs=1e-9)
    kept = [a for a, r in zip(result, rewards, strict=True) if not math.isnan(r)]
    assert kept == advantages([r for r in rewards if not math.isnan(r)])
