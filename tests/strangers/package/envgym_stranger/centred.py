"""An objective: −A·ℓ with rewards centred in the group."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs
from envgym_trainers.objectives import Metrics, Objective
from envgym_trainers.objectives.ops.advantages import group_centred
from envgym_trainers.objectives.ops.reduction import Totals, token_mean


class Centred(Objective):
    """REINFORCE with the group's mean as its baseline."""

    class Config(Objective.Config):
        """Settings of ``Centred``."""

        scale: float = Field(default=1.0, gt=0)

    config: Config

    def advantages(self, rewards: Tensor) -> Tensor:
        """Subtract the mean of the group. [G]."""
        return group_centred(rewards)

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return the token mean of −A·ℓ."""
        loss = token_mean(-self.config.scale * batch.advantages * outputs.logprobs, batch.mask, totals)
        return loss, {"centred_scale": token_mean(outputs.entropy * 0 + self.config.scale, batch.mask, totals)}
