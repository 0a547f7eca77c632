"""DPO: direct preference optimization on pairs from grouped rollouts, arXiv 2305.18290.

    Δ = Σ_{t of chosen} m·(ℓ − f) − Σ_{t of rejected} m·(ℓ − f)
    L = 1/U Σ_units −log σ(β·Δ)

A pair is the best and the worst member of a group, where their rewards differ by ``gap`` or more. The advantages
mark the sides, +1 on chosen and −1 on rejected tokens, so that Δ is a sum over the rows of a unit: a member whose
history was rewritten has several rows, and all of them count.

Deviations from the paper: pairs are sampled from the policy that is trained, and judged by the environment's
reward; one pair a group; the sums run over sampled tokens only, in all turns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from envgym_trainers.batch import Batch, Outputs, Unit
from envgym_trainers.objectives.base import Member, Metrics, Needs, Objective
from envgym_trainers.objectives.ops.reduction import Totals, token_mean

__all__ = ["DPO"]


class DPO(Objective):
    """Preference of the best member of a group over the worst, against a reference model."""

    class Config(Objective.Config):
        """Settings of pairs and loss."""

        beta: float = Field(default=0.1, gt=0)
        """β: strength of the pull towards the reference; larger keeps the policy closer to it."""
        gap: float = Field(default=0.5, gt=0)
        """Minimum difference in reward between the members of a pair; a group without one is left out."""

    config: Config

    def needs(self) -> Needs:
        """Require a reference model."""
        return Needs(auxiliary=frozenset({"reference"}))

    def units(self, members: Sequence[Member]) -> list[Unit]:
        """Return the pair of the best and the worst member; the first in the group wins ties."""
        present = [m for m in members if m.samples and not math.isnan(m.reward)]
        if not present:
            return []
        chosen = max(present, key=lambda m: m.reward)
        rejected = min(present, key=lambda m: m.reward)
        if chosen.reward - rejected.reward < self.config.gap:
            return []
        sides = ((chosen, 1.0), (rejected, -1.0))
        return [tuple(dataclasses.replace(s, advantages=s.spread(sign)) for m, sign in sides for s in m.samples)]

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return the mean loss over pairs; see ``Objective.loss``."""
        if batch.reference_logprobs is None:
            raise ValueError("DPO needs reference_logprobs in the batch")
        gaps = torch.where(batch.mask, outputs.logprobs - batch.reference_logprobs, 0.0)
        rows = (torch.where(batch.mask, batch.advantages, 0.0) * gaps).sum(-1)
        margins = rows.new_zeros(int(batch.unit.max()) + 1).index_add(0, batch.unit, rows)
        loss = -logsigmoid(self.config.beta * margins).sum() / totals.units
        with torch.no_grad():
            chosen = batch.advantages > 0
            metrics = {
                "margin": margins.sum() / totals.units,
                "preferred": (margins > 0).float().sum() / totals.units,
                "chosen_drift": torch.where(chosen, gaps, 0.0).sum() / totals.units,
                "rejected_drift": torch.where(chosen, 0.0, gaps).sum() / totals.units,
                "entropy": token_mean(outputs.entropy, batch.mask, totals),
            }
        return loss, metrics
