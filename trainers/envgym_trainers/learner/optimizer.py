"""One optimizer update from a list of samples, in micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from envgym_trainers.batch import Batch, Sample, collate, micro_batches
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import Metrics, merge_metrics
from envgym_trainers.objectives.ops.reduction import Totals
from envgym_trainers.recipe import OptimizerConfig

__all__ = ["Loss", "Updater"]

Loss = Callable[[Batch, torch.Tensor, torch.Tensor, Totals], tuple[torch.Tensor, Metrics]]
"""From a batch, its log-probs [B, T], entropies [B, T] and the optimizer batch's totals to a share of the loss."""


class Updater:
    """Owns the optimizer and its learning-rate schedule.

    Args:
        language_model: what is trained, in place.
        config: of the optimizer.
        temperature: at which the samples were drawn.
        total_updates: of the whole run, for a falling rate.
    """

    def __init__(
        self, language_model: LanguageModel, config: OptimizerConfig, *, temperature: float, total_updates: int
    ) -> None:
        self._language_model = language_model
        self._config = config
        self._temperature = temperature
        self._parameters = [p for p in language_model.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._total_updates = max(1, total_updates)
        self.updates = 0
        """Updates done, skipped ones included."""

    @property
    def learning_rate(self) -> float:
        """Rate of the next update."""
        config = self._config
        warm = min(1.0, (self.updates + 1) / (config.warmup_steps + 1))
        left = 1.0 - self.updates / self._total_updates if config.decay == "linear" else 1.0
        return config.learning_rate * warm * max(left, 0.0)

    def update(self, samples: Sequence[Sample], loss: Loss) -> dict[str, float]:
        """Take one optimizer step on ``samples``.

        Returns:
            the objective's metrics, ``loss``, ``grad_norm`` and ``learning_rate``. A gradient that is not finite
            is not applied: ``skipped`` is 1.
        """
        totals = Totals.of(samples)
        device = self._language_model.model.device
        parts: list[Metrics] = []
        total = 0.0
        for pack in micro_batches(samples, self._config.micro_batch_tokens):
            batch = collate(pack, self._language_model.pad_id).to(device)
            logprobs, entropy = token_logprobs(self._language_model.model, batch, self._temperature)
            share, metrics = loss(batch, logprobs, entropy, totals)
            share.backward()
            total += float(share.detach())
            parts.append(metrics)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm))
        finite = math.isfinite(norm)
        rate = self.learning_rate
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return {
            **merge_metrics(parts),
            "loss": total,
            "grad_norm": norm if finite else 0.0,
            "learning_rate": rate,
            "skipped": float(not finite),
        }

    def state(self) -> dict[str, Any]:
        """Tensors and numbers that ``restore`` needs: the optimizer, and adapters if they alone are trained.

        A model that is trained whole is saved whole, beside this.
        """
        named = dict(self._language_model.model.named_parameters())
        partly = len(self._parameters) < len(named)
        return {
            "updates": self.updates,
            "optimizer": self.optimizer.state_dict(),
            "adapters": {n: p.detach() for n, p in named.items() if p.requires_grad} if partly else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state()`` of an earlier process, with a model loaded from the same checkpoint."""
        self.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        named = dict(self._language_model.model.named_parameters())
        with torch.no_grad():
            for name, value in state["adapters"].items():
                named[name].copy_(value)
