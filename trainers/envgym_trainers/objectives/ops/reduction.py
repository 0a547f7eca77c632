"""From per-token losses to one number, the same however the optimizer batch is cut up.

Each function gives a micro-batch's share Σ(L·m)/D with D taken over the *whole* optimizer batch, so the
shares of all micro-batches on all ranks add up, values and gradients, to the result for the uncut batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from envgym_trainers.batch import Sample

__all__ = ["Totals", "constant_mean", "sequence_mean", "token_mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Size of an optimizer batch, taken before it is cut into micro-batches."""

    tokens: int
    """Sampled tokens (N)."""
    sequences: int
    """Samples (B)."""

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Self:
        """Count what ``samples`` hold."""
        counts = [sample.model_tokens for sample in samples]
        return cls(tokens=sum(counts), sequences=len(counts))

    def __add__(self, other: Totals) -> Totals:
        """Totals of two disjoint parts, e.g. of two ranks."""
        return Totals(tokens=self.tokens + other.tokens, sequences=self.sequences + other.sequences)


def token_mean(values: Tensor, mask: Tensor, totals: Totals) -> Tensor:
    """ΣLm / N: every token weighs the same. DAPO, arXiv 2503.14476.

    Args:
        values: [B, T]; what stands outside the mask has no effect, NaN included.
        mask: [B, T] bool.
        totals: of the whole optimizer batch.

    Returns:
        Scalar: this micro-batch's share.
    """
    return _masked(values, mask).sum() / totals.tokens


def sequence_mean(values: Tensor, mask: Tensor, totals: Totals) -> Tensor:
    """Σ_i (ΣLm / n_i) / B: every sequence weighs the same. GRPO, arXiv 2402.03300. See ``token_mean``."""
    lengths = mask.sum(-1).clamp(min=1)
    return (_masked(values, mask).sum(-1) / lengths).sum() / totals.sequences


def constant_mean(values: Tensor, mask: Tensor, totals: Totals, *, max_tokens: int) -> Tensor:
    """ΣLm / (B·L_max): no length in the weight. Dr.GRPO, arXiv 2503.20783. See ``token_mean``.

    Args:
        values: [B, T].
        mask: [B, T] bool.
        totals: of the whole optimizer batch.
        max_tokens: L_max, the most tokens a sequence may sample.
    """
    return _masked(values, mask).sum() / (totals.sequences * max_tokens)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    # Multiplying by the mask would let NaN * 0 through.
    return torch.where(mask, values, 0.0)
