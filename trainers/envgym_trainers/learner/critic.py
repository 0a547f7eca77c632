"""The critic: a value for every state in which the policy sampled a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from envgym_trainers.batch import Batch, Sample
from envgym_trainers.distributed.sharding import fill, shard, shard_like
from envgym_trainers.distributed.team import ALONE, Team
from envgym_trainers.learner.auxiliary import Auxiliary, annotate_tokens
from envgym_trainers.learner.optimizer import MasterAdamW
from envgym_trainers.learner.scorer import unsharded_copy
from envgym_trainers.models.head import backbone_and_head
from envgym_trainers.models.load import load_model
from envgym_trainers.models.placement import DTYPES
from envgym_trainers.models.recompute import checkpointed
from envgym_trainers.recipe import StageRecipe

__all__ = ["Critic"]


class _Head(nn.Linear):
    """A head that can be sharded by itself, which keeps it in float32: FSDP warns of results that are views."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden).clone()


class _Network(nn.Module):
    """A backbone and a head of one output, whose first values are 0."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.backbone, _ = backbone_and_head(model)
        self.head = _Head(model.config.get_text_config().hidden_size, 1, device=model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Tensor:
        batch = batch.to(next(self.parameters()).device)
        hidden = self.backbone(input_ids=batch.ids, use_cache=False)[0][:, :-1]
        values: Tensor = self.head(hidden.float()).squeeze(-1)
        return torch.where(batch.mask, nn.functional.pad(values, (1, 0)), 0.0)


def _network(recipe: StageRecipe, team: Team) -> tuple[_Network, int]:
    """Return the network and its padding id, sharded where there is more than one process."""
    config = recipe.model.model_copy(update={"lora_rank": 0})
    if team.size == 1:
        whole = load_model(config)
        return _Network(whole.model), whole.pad_id
    source = load_model(config.model_copy(update={"device": "cpu"})) if team.leads else None
    model, pad_id = unsharded_copy(source, team)
    network = _Network(model)
    shard(network.head, team, torch.float32)
    shard(network, team, DTYPES[recipe.model.dtype])
    fill(network, _Network(source.model) if source else None, team)
    return network, pad_id


class Critic(Auxiliary):
    """A linear head over a copy of the start model's backbone; both are trained, at a separate learning rate.

    The head starts at 0, so that the first values are 0 and the first advantages those without a critic.

    Args:
        recipe: ``auxiliary.critic`` sets the learning rate; precision and clipping are the policy's.
        team: the processes over which it is sharded; each method is then called in all of them.
    """

    def __init__(self, recipe: StageRecipe, team: Team = ALONE) -> None:
        self._network, self._pad_id = _network(recipe, team)
        self._rate = recipe.auxiliary.critic.learning_rate
        self._checkpointing = recipe.optimizer.gradient_checkpointing
        self._max_tokens = recipe.optimizer.micro_batch_tokens
        self._team = team
        narrow = self._network.backbone.parameters() if recipe.model.dtype != "float32" else ()
        self._optimizer = MasterAdamW(self._network.parameters(), recipe.optimizer, team, narrow)

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        """Fill ``values`` with the predictions before the step."""
        return annotate_tokens(
            samples, "values", self.values, pad_id=self._pad_id, max_tokens=self._max_tokens, team=self._team
        )

    def values(self, batch: Batch) -> Tensor:
        """Return the values, [B, T] float32: ``[b, t]`` is read where token t was predicted; 0 outside the mask.

        Padding is on the right, where causal attention never looks, so no attention mask is needed.
        """
        with checkpointed(self._network, self._checkpointing):
            values: Tensor = self._network(batch)
        return values

    def step(self, schedule: float) -> dict[str, float]:
        """Take an optimizer step on the gradients of the loss."""
        return {"grad_norm": self._optimizer.step(self._rate * schedule)}

    def sound(self) -> bool:
        """Return true if the gradients of the loss are finite."""
        return self._optimizer.sound()

    def discard(self) -> None:
        """Clear the gradients of an update that is not taken."""
        self._optimizer.discard()

    def state(self) -> dict[str, Any]:
        """Return the weights and the optimizer's state."""
        return {
            "backbone": self._network.backbone.state_dict(),
            "head": self._network.head.state_dict(),
            "optimizer": self._optimizer.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``."""
        for part, saved in ((self._network.backbone, state["backbone"]), (self._network.head, state["head"])):
            own = part.state_dict()
            part.load_state_dict({name: shard_like(value, own[name]) for name, value in saved.items()})
        self._optimizer.restore(state["optimizer"])
