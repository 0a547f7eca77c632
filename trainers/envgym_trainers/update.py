"""One optimizer update from a list of samples, in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from envgym_trainers.aggregate import Totals
from envgym_trainers.batch import Batch, Sample, collate, micro_batches
from envgym_trainers.logprobs import token_logprobs
from envgym_trainers.models import LanguageModel
from envgym_trainers.objectives import Metrics, merge_metrics
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

        def rate(done: int) -> float:
            warm = min(1.0, (done + 1) / (config.warmup_steps + 1))
            left = 1.0 - done / max(1, total_updates) if config.decay == "linear" else 1.0
            return warm * max(left, 0.0)

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

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
        finite = norm == norm and norm != float("inf")
        used_rate = float(self.schedule.get_last_lr()[0])
        if finite:
            self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            **merge_metrics(parts),
            "loss": total,
            "grad_norm": norm if finite else 0.0,
            "learning_rate": used_rate,
            "skipped": float(not finite),
        }

    def state(self) -> dict[str, Any]:
        """Tensors and numbers that ``restore`` needs: optimizer, schedule, and the trainable weights."""
        names = {n: p for n, p in self._language_model.model.named_parameters() if p.requires_grad}
        weights = {n: p.detach() for n, p in names.items()}
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch, "last_lr": self.schedule.get_last_lr()},
            "weights": weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state()`` of an earlier process."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        self.schedule._last_lr = state["schedule"]["last_lr"]
        parameters = dict(self._language_model.model.named_parameters())
        with torch.no_grad():
            for name, value in state["weights"].items():
                parameters[name].copy_(value)
