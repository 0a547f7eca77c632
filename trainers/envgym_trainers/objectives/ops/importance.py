"""Importance weights between the trainer and the engine that sampled.

An engine computes its log-probs with other kernels, at another precision, or from weights a moment older; what it
samples from is then not quite the policy that is trained. d = o − b is the difference, token by token.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from envgym.config import Section
from envgym_trainers.batch import Batch

__all__ = ["ImportanceSettings", "engine_gap", "importance_weight"]

_MAX_LOG_WEIGHT = 20.0


class ImportanceSettings(Section):
    """Settings of the weight w that corrects for the engine; a part of an objective's ``Config``."""

    importance_cap: float | None = Field(default=None, gt=0)
    """Cap of the importance weight between trainer and engine; None for no weight. 2 is usual."""
    importance_level: Literal["token", "sequence", "geometric"] = "token"
    """exp(d) of each token, exp(Σd) of the sequence (unbiased, of high variance), or exp(Σd/n), their mean."""
    importance_mode: Literal["truncate", "mask"] = "truncate"
    """Beyond the cap: hold the weight at it (TIS), or give the token or sequence the weight 0 (MIS)."""


def engine_gap(batch: Batch, logprobs: Tensor) -> Tensor:
    """Return d = o − b, [B, T], without gradient; 0 outside the mask and where the engine reported nothing.

    Both sides must be of one temperature and support.
    """
    old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    reported = batch.mask & ~batch.behaviour_logprobs.isnan()
    return torch.where(reported, old - batch.behaviour_logprobs, 0.0)


def importance_weight(batch: Batch, logprobs: Tensor, settings: ImportanceSettings) -> Tensor | None:
    """Return w, [B, T], without gradient, or ``None`` where the settings ask for no weight.

    Sources: truncation, arXiv 2510.26788 and verl's TIS; masking of whole sequences, MIS, and the geometric mean,
    as in TRL's ``vllm_importance_sampling_mode``. A weight of 0 leaves the totals of the batch as they are.
    """
    cap = settings.importance_cap
    if cap is None:
        return None
    logs = engine_gap(batch, logprobs)
    if settings.importance_level != "token":
        logs = logs.sum(-1, keepdim=True)
        if settings.importance_level == "geometric":
            logs = logs / batch.mask.sum(-1, keepdim=True).clamp(min=1)
        logs = logs.expand_as(batch.behaviour_logprobs)
    weights = logs.clamp(-_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT).exp()
    if settings.importance_mode == "mask":
        return torch.where(weights > cap, 0.0, weights)
    return weights.clamp(max=cap)
