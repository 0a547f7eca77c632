"""The critic: a value for every state in which the policy sampled a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from envgym_trainers.batch import Batch, Sample
from envgym_trainers.learner.auxiliary import Auxiliary, annotate_tokens
from envgym_trainers.learner.optimizer import MasterAdamW
from envgym_trainers.models.head import backbone_and_head
from envgym_trainers.models.load import load_model
from envgym_trainers.models.recompute import checkpointed
from envgym_trainers.recipe import StageRecipe

__all__ = ["Critic"]


class Critic(Auxiliary):
    """A linear head over a copy of the start model's backbone; both are trained, at a separate learning rate.

    The head starts at 0, so that the first values are 0 and the first advantages those without a critic.

    Args:
        recipe: ``auxiliary.critic`` sets the learning rate; precision and clipping are the policy's.
    """

    def __init__(self, recipe: StageRecipe) -> None:
        whole = load_model(recipe.model.model_copy(update={"lora_rank": 0}))
        self._pad_id = whole.pad_id
        self._backbone, _ = backbone_and_head(whole.model)
        self._device = whole.model.device
        width = whole.model.config.get_text_config().hidden_size
        self._head = nn.Linear(width, 1, device=self._device)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self._rate = recipe.auxiliary.critic.learning_rate
        self._checkpointing = recipe.optimizer.gradient_checkpointing
        self._max_tokens = recipe.optimizer.micro_batch_tokens
        parameters = (*self._backbone.parameters(), *self._head.parameters())
        self._optimizer = MasterAdamW(parameters, recipe.optimizer)

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        """Fill ``values`` with the predictions before the step."""
        return annotate_tokens(samples, "values", self.values, pad_id=self._pad_id, max_tokens=self._max_tokens)

    def values(self, batch: Batch) -> Tensor:
        """Return the values, [B, T] float32: ``[b, t]`` is read where token t was predicted; 0 outside the mask.

        Padding is on the right, where causal attention never looks, so no attention mask is needed.
        """
        batch = batch.to(self._device)
        with checkpointed(self._backbone, self._checkpointing):
            hidden = self._backbone(input_ids=batch.ids, use_cache=False)[0][:, :-1]
        values: Tensor = self._head(hidden.float()).squeeze(-1)
        return torch.where(batch.mask, nn.functional.pad(values, (1, 0)), 0.0)

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
            "backbone": self._backbone.state_dict(),
            "head": self._head.state_dict(),
            "optimizer": self._optimizer.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``."""
        self._backbone.load_state_dict(state["backbone"])
        self._head.load_state_dict(state["head"])
        self._optimizer.restore(state["optimizer"])
