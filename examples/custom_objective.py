"""An objective that comes from outside: imitate the best trajectories of each group. arXiv 2304.06767 (RAFT).

    A_i = 1 for the ``keep`` members with the greatest reward, if it is above the group's mean; 0 for the others
    L   = −1/N Σ_i Σ_t m·A_i·ℓ        ℓ: log-prob under the policy being trained

A group whose valid rewards are all equal teaches nothing: A = 0. Missing members (NaN) count nowhere.

Deviations from the paper: the best are taken from each group at every step, not from one large batch that is
then fine-tuned on; N counts every sampled token of the optimizer batch, also those with A = 0.

A recipe names it by its path: see ``examples/custom_objective.toml``.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs
from envgym_trainers.objectives import Metrics, Objective
from envgym_trainers.objectives.ops.advantages import group_centred
from envgym_trainers.objectives.ops.reduction import Totals, token_mean

__all__ = ["BestOfGroup"]


class BestOfGroup(Objective):
    """Likelihood of the best members of each group."""

    class Config(Objective.Config):
        """Settings of the loss."""

        keep: int = Field(default=1, ge=1)
        """Members of a group that are imitated."""

    config: Config

    def advantages(self, rewards: Tensor) -> Tensor:
        """[G]: 1 for the kept members; of equals the first in the group come first."""
        centred = group_centred(rewards)
        chosen = torch.zeros_like(centred)
        chosen[centred.argsort(descending=True, stable=True)[: self.config.keep]] = 1.0
        return chosen * (centred > 0)

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Token mean of −A·ℓ; see ``Objective.loss``."""
        metrics = {
            "entropy": token_mean(outputs.entropy, batch.mask, totals),
            "imitated_tokens": token_mean(batch.advantages, batch.mask, totals),
        }
        return token_mean(-batch.advantages * outputs.logprobs, batch.mask, totals), metrics
