"""GRPO: group relative policy optimization, arXiv 2402.03300.

    A_i = (R_i − mean R)/(std R + 1e-4)
    L   = 1/B Σ_i 1/n_i Σ_t m·[ −min(rA, clip(r, 1−ε_low, 1+ε_high)·A)·w + β·k3 ],   r = exp(ℓ − o)

Deviations from the paper: ε_low and ε_high are two settings (equal by default); β is 0 by default, as has
become usual with verifiable rewards (the paper: 0.04); ε = 1e-4 under the standard deviation, and an equal
group gets exactly 0; ℓ − o is held within ±20; w, off by default, corrects for the engine's own
probabilities.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs
from envgym_trainers.objectives.base import Metrics, Needs, Objective
from envgym_trainers.objectives.ops.advantages import group_normalised
from envgym_trainers.objectives.ops.importance import ImportanceSettings
from envgym_trainers.objectives.ops.policy_gradient import clipped_surrogate, k3, log_ratio, policy_metrics
from envgym_trainers.objectives.ops.reduction import Totals, sequence_mean

__all__ = ["GRPO"]


class GRPO(Objective):
    """Group-normalised advantages, symmetric clip, mean over sequences, optional KL to a reference."""

    class Config(ImportanceSettings, Objective.Config):
        """Settings of the loss."""

        clip_low: float = Field(default=0.2, ge=0, le=1)
        """ε_low: the ratio is clipped below at 1 − ε_low."""
        clip_high: float = Field(default=0.2, ge=0)
        """ε_high: the ratio is clipped above at 1 + ε_high."""
        beta: float = Field(default=0.0, ge=0)
        """Weight of the KL penalty; a value above 0 needs a reference model."""
        unbiased_kl: bool = False
        """Multiply k3 by r, which makes its gradient that of the KL itself: DeepSeek-V3.2, arXiv 2512.02556."""

    config: Config

    def needs(self) -> Needs:
        """Require a reference model if ``beta`` is above 0."""
        return Needs(auxiliary=frozenset({"reference"} if self.config.beta > 0 else ()))

    def advantages(self, rewards: Tensor) -> Tensor:
        """Normalise by mean and standard deviation of the group, [G]; see ``group_normalised``."""
        return group_normalised(rewards)

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return the sequence mean of the clipped surrogate and the KL penalty; see ``Objective.loss``."""
        logprobs = outputs.logprobs
        clip = {"clip_low": self.config.clip_low, "clip_high": self.config.clip_high}
        losses = clipped_surrogate(batch, logprobs, **clip, importance=self.config)
        metrics = policy_metrics(batch, outputs, totals, **clip)
        if self.config.beta > 0:
            penalty = k3(batch, logprobs)
            if self.config.unbiased_kl:
                penalty = penalty * log_ratio(batch, logprobs).exp()
            losses = losses + self.config.beta * penalty
            metrics["reference_kl"] = sequence_mean(penalty.detach(), batch.mask, totals, batch.lengths)
        return sequence_mean(losses, batch.mask, totals, batch.lengths), metrics
