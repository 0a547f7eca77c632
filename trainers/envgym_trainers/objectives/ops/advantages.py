"""Advantages of one group's members from their rewards.

NaN stands for a missing reward: an episode lost to an infrastructure failure. It stays out of mean and
standard deviation and gets advantage 0; the caller leaves such a member out of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EQUAL_WITHIN", "group_centred", "group_normalised"]

EQUAL_WITHIN = 1e-6
"""Rewards within this span are equal. Otherwise the rounding residue of an equal group, divided by its own
standard deviation, would look like a signal."""


def group_normalised(rewards: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """Return (R − mean)/(std + ε) with the unbiased standard deviation: GRPO, arXiv 2402.03300.

    The paper has no ε; 1e-4 is TRL's.

    Args:
        rewards: [G], NaN where missing.
        epsilon: ε, in units of the reward.

    Returns:
        [G] float64; exactly 0 for a missing member, and for all members when fewer than two are valid or the
        valid rewards span less than 1e-6.

    Raises:
        ValueError: ``rewards`` is not 1-D, or holds an infinity.
    """
    centred = group_centred(rewards)
    if not bool(centred.any()):
        return centred
    return centred / (centred[~rewards.isnan()].std() + epsilon)


def group_centred(rewards: Tensor) -> Tensor:
    """Return R − mean: Dr.GRPO, arXiv 2503.20783. Arguments, result and errors as in ``group_normalised``."""
    if rewards.ndim != 1 or bool(rewards.isinf().any()):
        raise ValueError(f"rewards must be 1-D and finite or NaN, got {rewards.tolist()}")
    rewards = rewards.double()
    valid = ~rewards.isnan()
    present = rewards[valid]
    if present.numel() < 2 or float(present.max() - present.min()) < EQUAL_WITHIN:
        return torch.zeros_like(rewards)
    return torch.where(valid, rewards - present.mean(), 0.0)
