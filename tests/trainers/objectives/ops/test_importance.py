"""Weights between trainer and engine, by hand: levels, modes, what is not reported, what is not counted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from envgym_trainers.batch import Batch
from envgym_trainers.objectives.ops.importance import ImportanceSettings, importance_weight

NAN = math.nan
# d = o - b is log 2, -log 4, 0 for the first row's sampled tokens, log 8 and a missing report for the second's.
OLD = torch.tensor([[NAN, 0.0, 0.0, NAN, 0.0], [NAN, 0.0, 0.0, NAN, NAN]])
REPORTED = torch.tensor([[NAN, -math.log(2), math.log(4), NAN, 0.0], [NAN, -math.log(8), NAN, NAN, NAN]])
MASK = torch.tensor([[False, True, True, False, True], [False, True, True, False, False]])
BATCH = Batch(
    ids=torch.ones(2, 5, dtype=torch.int64),
    attention=torch.ones(2, 5, dtype=torch.bool),
    mask=MASK,
    behaviour_logprobs=REPORTED,
    advantages=torch.ones(2, 5),
    unit=torch.arange(2),
    old_logprobs=OLD,
)
FIRST, SECOND = 2 * (1 / 4), 8.0
FIRST_MEAN, SECOND_MEAN = 0.5 ** (1 / 3), 8 ** (1 / 2)


@pytest.mark.parametrize(
    ("level", "mode", "cap", "expected"),
    [
        ("token", "truncate", 3.0, [2, 0.25, 1, 3, 1]),
        ("token", "mask", 3.0, [2, 0.25, 1, 0, 1]),
        ("sequence", "truncate", 3.0, [FIRST] * 3 + [3] * 2),
        ("sequence", "mask", 3.0, [FIRST] * 3 + [0] * 2),
        ("geometric", "truncate", 2.5, [FIRST_MEAN] * 3 + [2.5] * 2),
        ("geometric", "mask", 3.0, [FIRST_MEAN] * 3 + [SECOND_MEAN] * 2),
    ],
)
def test_by_hand(level: Any, mode: Any, cap: float, expected: list[float]) -> None:
    settings = ImportanceSettings(importance_cap=cap, importance_level=level, importance_mode=mode)
    logprobs = torch.zeros(2, 5, requires_grad=True)
    weight = importance_weight(BATCH, logprobs, settings)
    assert weight is not None
    assert not weight.requires_grad
    assert weight[MASK].tolist() == pytest.approx(expected)


def test_no_cap_is_no_weight() -> None:
    assert importance_weight(BATCH, torch.zeros(2, 5), ImportanceSettings()) is None


def test_one_update_a_step_compares_the_policy_itself() -> None:
    """Without old log-probs, o is the current policy's, without gradient."""
    columns = {name: getattr(BATCH, name) for name in ("ids", "attention", "mask", "advantages", "unit")}
    batch = Batch(**columns, behaviour_logprobs=torch.full((2, 5), -1.0))
    weight = importance_weight(batch, torch.full((2, 5), -0.5), ImportanceSettings(importance_cap=9))
    assert weight is not None
    assert weight[MASK].tolist() == pytest.approx([math.exp(0.5)] * 5)
