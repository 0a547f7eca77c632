"""Reduce per-token losses to a scalar that does not depend on the split into micro-batches.

Each function gives a micro-batch's share Σ(L·m)/D with D taken over the *whole* optimizer batch, so the
shares of all micro-batches on all ranks add up, values and gradients, to the result for the uncut batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from envgym_trainers.batch import Unit

__all__ = ["Totals", "sequence_mean", "token_mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Size of an optimizer batch, counted before it is split into micro-batches."""

    tokens: int
    """Sampled tokens (N)."""
    sequences: float
    """Trajectories (B): the samples of one whose history was rewritten count once together."""
    units: int
    """Units (U)."""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Self:
        """Count the tokens, trajectories and units of ``units``."""
        samples = [sample for unit in units for sample in unit]
        tokens = sum(sample.model_tokens for sample in samples)
        return cls(tokens=tokens, sequences=math.fsum(s.share for s in samples), units=len(units))

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
        values: [B, T]; values outside the mask have no effect, NaN included.
        mask: [B, T] bool.
        totals: sizes of the whole optimizer batch.

    Returns:
        this micro-batch's share, a scalar.
    """
    return _masked(values, mask).sum() / totals.tokens


def sequence_mean(values: Tensor, mask: Tensor, totals: Totals, lengths: Tensor | None = None) -> Tensor:
    """Return Σ_i (ΣLm / n_i) / B: every trajectory weighs the same. GRPO, arXiv 2402.03300; see ``token_mean``.

    Args:
        values: [B, T]; values outside the mask have no effect, NaN included.
        mask: [B, T] bool.
        totals: sizes of the whole optimizer batch.
        lengths: [B] n_i, ``Batch.lengths``: the rows of a trajectory whose history was rewritten share it; None
            for each row's own.
    """
    counts = mask.sum(-1) if lengths is None else lengths
    return (_masked(values, mask).sum(-1) / counts.clamp(min=1)).sum() / totals.sequences


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    # Multiplying by the mask would let NaN * 0 through.
    return torch.where(mask, values, 0.0)
