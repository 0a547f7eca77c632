"""AdamW on float32 master weights, for models of any precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from envgym_trainers.recipe import OptimizerConfig

__all__ = ["MasterAdamW"]


class MasterAdamW:
    """AdamW that accumulates in float32 and writes the result back in the parameters' own precision.

    A step of 1e-6 is less than half the spacing of bfloat16 numbers of usual magnitude: added to 16-bit weights it
    is rounded away, and the weights never change. Micikevicius et al., Mixed precision training, arXiv 1710.03740,
    section 3.1.

    Args:
        parameters: trained in place; those in float32 or wider are their own master copies.
        config: betas, weight decay and the norm that gradients are clipped to.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig) -> None:
        self.parameters = list(parameters)
        self._clip_norm = config.clip_norm
        self._masters: list[torch.Tensor] = [
            p if torch.finfo(p.dtype).bits >= 32 else p.detach().float().clone().requires_grad_()
            for p in self.parameters
        ]
        self._adamw = torch.optim.AdamW(
            self._masters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    def step(self, rate: float) -> float:
        """Clip the gradients, take one step at learning rate ``rate``, and clear them.

        Returns:
            the gradient norm before clipping. If it is not finite, the step is skipped.
        """
        for parameter, master in zip(self.parameters, self._masters, strict=True):
            if master is not parameter and parameter.grad is not None:
                master.grad = parameter.grad.float()
        norm = float(torch.nn.utils.clip_grad_norm_(self._masters, self._clip_norm))
        if math.isfinite(norm):
            for group in self._adamw.param_groups:
                group["lr"] = rate
            self._adamw.step()
            self._write_back()
        for tensor in (*self.parameters, *self._masters):
            tensor.grad = None
        return norm

    def state(self) -> dict[str, Any]:
        """Return the moments, and the master copies that are not the parameters themselves."""
        own = [m for p, m in zip(self.parameters, self._masters, strict=True) if m is not p]
        return {"adamw": self._adamw.state_dict(), "masters": [master.detach() for master in own]}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``, with parameters of the same shapes and precisions."""
        self._adamw.load_state_dict(state["adamw"])
        own = [m for p, m in zip(self.parameters, self._masters, strict=True) if m is not p]
        for master, saved in zip(own, state["masters"], strict=True):
            master.copy_(saved)
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        for parameter, master in zip(self.parameters, self._masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)
