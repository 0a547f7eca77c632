"""DAPO: decoupled clip and dynamic sampling policy optimization, arXiv 2503.14476.

    R_i = 2·score_i − 1 + overlong(y_i)          y: sampled tokens
    A_i = (R_i − mean R)/(std R + 1e-4)
    L   = 1/N Σ_i Σ_t m·[ −min(rA, clip(r, 1−ε_low, 1+ε_high)·A)·w ],   r = exp(ℓ − o)

Clip-higher, token mean over the whole optimizer batch, no KL, soft overlong punishment before normalisation,
and dynamic sampling on the unshaped score.

Deviations from the paper: y counts sampled tokens only, not tool output; surplus groups are carried over
to the next step; ε = 1e-4 under the standard deviation, and an equal group gets exactly 0; ℓ − o is held
within ±20; w, off by default, corrects for the engine's own probabilities. Scores between 0 and 1 map
linearly onto the paper's ±1. Overlong filtering, the paper's alternative to the punishment, is the recipe's
``truncated.tokens = "mask"``, for every objective.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs
from envgym_trainers.objectives.base import Metrics, Needs, Objective
from envgym_trainers.objectives.ops.advantages import group_normalised
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling
from envgym_trainers.objectives.ops.importance import ImportanceSettings
from envgym_trainers.objectives.ops.overlong import SoftOverlong
from envgym_trainers.objectives.ops.policy_gradient import clipped_surrogate, policy_metrics
from envgym_trainers.objectives.ops.reduction import Totals, token_mean

__all__ = ["DAPO"]


class DAPO(Objective):
    """Group-normalised advantages, clip-higher, token mean, dynamic sampling, soft overlong punishment."""

    class Config(ImportanceSettings, Objective.Config):
        """Settings of the loss."""

        clip_low: float = Field(default=0.2, ge=0, le=1)
        """ε_low: the ratio is clipped below at 1 − ε_low."""
        clip_high: float = Field(default=0.28, ge=0)
        """ε_high: the ratio is clipped above at 1 + ε_high; larger than ε_low, so that rare tokens can grow."""
        dynamic_sampling: DynamicSampling | None = DynamicSampling()
        """Fill the batch with groups that have a signal; None, in a recipe false, trains on all."""
        overlong: SoftOverlong | None = SoftOverlong()
        """Length penalty; set ``max_tokens`` to the episode's limit. None, in a recipe false, for no penalty."""

    config: Config

    def needs(self) -> Needs:
        """Require dynamic sampling, as configured."""
        return Needs(dynamic_sampling=self.config.dynamic_sampling)

    def shape(self, scores: Tensor, model_tokens: Tensor) -> Tensor:
        """Map scores 0…1 to −1…1 and add the overlong penalty. [G]"""
        rewards = 2 * scores - 1
        return rewards if self.config.overlong is None else rewards + self.config.overlong.penalty(model_tokens)

    def advantages(self, rewards: Tensor) -> Tensor:
        """Normalise by mean and standard deviation of the group, [G]; see ``group_normalised``."""
        return group_normalised(rewards)

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return the token mean of the clipped surrogate; see ``Objective.loss``."""
        clip = {"clip_low": self.config.clip_low, "clip_high": self.config.clip_high}
        losses = clipped_surrogate(batch, outputs.logprobs, **clip, importance=self.config)
        return token_mean(losses, batch.mask, totals), policy_metrics(batch, outputs, totals, **clip)
