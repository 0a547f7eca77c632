"""The objectives' suite finds what it is for: one broken objective for each test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from envgym_trainers.objectives import Objective
from envgym_trainers.objectives.ops.advantages import group_centred
from envgym_trainers.objectives.ops.reduction import token_mean
from envgym_trainers.testing import ObjectiveContract


class Sound(Objective):
    def advantages(self, rewards: Tensor) -> Tensor:
        return group_centred(rewards)

    def loss(self, batch: Any, outputs: Any, totals: Any) -> Any:
        return token_mean(-batch.advantages * outputs.logprobs, batch.mask, totals), {}


class CountsTheMissing(Sound):
    def advantages(self, rewards: Tensor) -> Tensor:
        return rewards.nan_to_num() - rewards.nan_to_num().mean()


class RewardsEqualGroups(Sound):
    def advantages(self, rewards: Tensor) -> Tensor:
        return rewards.nan_to_num()


class ForgetsTheMask(Sound):
    def loss(self, batch: Any, outputs: Any, totals: Any) -> Any:
        everywhere = torch.ones_like(batch.mask)
        return token_mean((1 - batch.advantages) * outputs.logprobs.nan_to_num(), everywhere, totals), {}


class MeanOfItsOwn(Sound):
    def loss(self, batch: Any, outputs: Any, totals: Any) -> Any:
        return (-batch.advantages * outputs.logprobs)[batch.mask].mean(), {}


class Spoils(Sound):
    def loss(self, batch: Any, outputs: Any, totals: Any) -> Any:
        with torch.no_grad():
            outputs.logprobs.add_(1)
        return super().loss(batch, outputs, totals)


@pytest.mark.parametrize(
    ("kind", "test", "arguments"),
    [
        (CountsTheMissing, "test_a_missing_member_has_no_unit_and_no_influence", ()),
        (RewardsEqualGroups, "test_a_group_without_a_signal_is_not_learnt_from", ((1.0, 1.0),)),
        (ForgetsTheMask, "test_only_sampled_tokens_have_a_gradient", (-1.0,)),
        (MeanOfItsOwn, "test_micro_batches_add_up", ()),
        (Spoils, "test_the_loss_is_a_finite_scalar_and_pure", ()),
    ],
)
def test_each_test_finds_what_it_is_for(kind: type[Objective], test: str, arguments: tuple[Any, ...]) -> None:
    getattr(ObjectiveContract(), test)(Sound(), *arguments)
    with pytest.raises(AssertionError):
        getattr(ObjectiveContract(), test)(kind(), *arguments)
