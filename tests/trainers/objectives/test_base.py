"""A researcher's objective in one class, and how metrics of micro-batches merge."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field

from envgym.errors import RecipeError
from envgym_trainers.batch import Outputs
from envgym_trainers.objectives import Needs, Objective, merge_metrics
from envgym_trainers.objectives.ops.advantages import group_centred
from envgym_trainers.objectives.ops.reduction import Totals, token_mean


class Reinforce(Objective):
    """−A·ℓ, as a third party would write it."""

    class Config(Objective.Config):
        scale: float = Field(default=1.0, gt=0)
        """Factor of the loss."""

    config: Config

    def advantages(self, rewards):
        return group_centred(rewards)

    def loss(self, batch, outputs, totals):
        loss = token_mean(-self.config.scale * batch.advantages * outputs.logprobs, batch.mask, totals)
        return loss, {"entropy": token_mean(outputs.entropy, batch.mask, totals)}


def test_an_objective_is_its_settings(random_batch):
    """Two methods are enough; settings are validated, unknown ones refused, and the rest has a default."""
    objective = Reinforce(scale=2.0)
    batch, values = random_batch()
    loss, _ = objective.loss(
        batch, Outputs(logprobs=values, entropy=values), Totals(tokens=2, sequences=1, units=1)
    )
    assert loss.item() == pytest.approx(-(batch.advantages * values)[batch.mask].sum().item())
    assert objective.needs() == Needs()
    with pytest.raises(RecipeError, match="did you mean 'scale'"):
        Reinforce(scael=2.0)
    with pytest.raises(RecipeError):
        Reinforce(scale=0.0)


def test_an_objective_without_a_loss_cannot_be_made():
    """What a subclass must set is enforced."""

    class Half(Objective):
        def advantages(self, rewards):
            return rewards

    with pytest.raises(TypeError, match="loss"):
        Half()


def test_an_objective_without_advantages_and_units_says_so():
    class Nothing(Objective):
        def loss(self, batch, outputs, totals):
            return outputs.logprobs.sum(), {}

    with pytest.raises(NotImplementedError, match=r"must define advantages\(rewards\) or units\(members\)"):
        Nothing().units([])


def test_metrics_add_up_and_maxima_stay_maxima():
    """Shares are summed; a name that ends in ``_max`` takes the largest."""
    parts = [
        {"entropy": torch.tensor(0.5), "ratio_max": torch.tensor(3.0)},
        {"entropy": torch.tensor(0.25), "ratio_max": torch.tensor(2.0)},
    ]
    assert merge_metrics(parts) == {"entropy": 0.75, "ratio_max": 3.0}
    assert merge_metrics([]) == {}
