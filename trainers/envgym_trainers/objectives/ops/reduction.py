"""From per-token losses to one number, the same however the optimizer batch is cut up.

Each function gives a micro-batch's share Σ(L·m)/D with D taken over the *whole* optimizer batch, so the
shares of all micro-batches on all ranks add up, values and gradients, to the result for the uncut batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from envgym_trainers.batch import Unit

__all__ = ["Totals", "sequence_mean", "token_mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Size of an optimizer batch, taken before it is cut into micro-batches."""

    tokens: int
    """Sampled tokens (N)."""
    sequences: int
    """Samples (B)."""
    units: int
    """Units (U)."""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Self:
        """Count what ``units`` hold."""
        counts = [sample.model_tokens for unit in units for sample in unit]
        return cls(tokens=sum(counts), sequences=len(counts), units=len(units))

    def __add__(self, other: Totals) -> Totals:
        """Return the totals of two disjoint parts, e.g. of two ranks."""
        return Totals(
            tokens=self.tokens + other.tokens,
            sequences=self.sequences + other.sequences,
            units=self.units + other.units,
        )


def token_mean(values: Tensor, mask: Tensor, totals: Totals) -> Tensor:
    """Return ΣLm / N: every token weighs the same. DAPO, arXiv 2503.14476.

    Args:
        values: [B, T]; what stands outside the mask has no effect, NaN included.
        mask: [B, T] bool.
        totals: of the whole optimizer batch.

    Returns:
        Scalar: this micro-batch's share.
    """
    return _masked(values, mask).sum() / totals.tokens


def sequence_mean(values: Tensor, mask: Tensor, totals: Totals) -> Tensor:
    """Return Σ_i (ΣLm / n_i) / B: every sequence weighs the same. GRPO, arXiv 2402.03300; see ``token_mean``."""
    lengths = mask.sum(-1).clamp(min=1)
    return (_masked(values, mask).sum(-1) / lengths).sum() / totals.sequences


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    # Multiplying by the mask would let NaN * 0 through.
    return torch.where(mask, values, 0.0)
