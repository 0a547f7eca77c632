"""Terms shared by clipped policy-gradient objectives. All tensors are [B, T]; notation as in
``objectives.base``."""

from __future__ import annotations

import torch
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs
from envgym_trainers.objectives.ops.importance import ImportanceSettings, engine_gap, importance_weight
from envgym_trainers.objectives.ops.reduction import Totals, token_mean

__all__ = ["clipped_surrogate", "k3", "log_ratio", "policy_metrics"]

_MAX_LOG_RATIO = 20.0
"""Keeps exp within float32 (e^20 ≈ 5e8). A log-ratio beyond it has no gradient."""


def log_ratio(batch: Batch, logprobs: Tensor) -> Tensor:
    """Return ℓ − o, within ±20, 0 outside the mask; o = ℓ without gradient where the batch carries none."""
    old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    return _difference(logprobs, old, batch.mask)


def _difference(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    # The mask comes first: NaN outside it must reach neither the value nor the gradient.
    return torch.where(mask, first - second, 0.0).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def clipped_surrogate(
    batch: Batch, logprobs: Tensor, *, clip_low: float, clip_high: float, importance: ImportanceSettings
) -> Tensor:
    """Return −min(rA, clip(r, 1−ε_low, 1+ε_high)·A)·w; no meaning and no gradient outside the mask.

    Sources: PPO, arXiv 1707.06347, for the clip; DAPO, arXiv 2503.14476, for its two ε.

    Args:
        batch: the micro-batch.
        logprobs: [B, T] ℓ with gradient.
        clip_low: ε_low.
        clip_high: ε_high.
        importance: settings of w, see ``importance_weight``.
    """
    ratio = log_ratio(batch, logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages)
    weight = importance_weight(batch, logprobs, importance)
    return losses if weight is None else losses * weight


def k3(batch: Batch, logprobs: Tensor) -> Tensor:
    """Return e^{f−ℓ} − (f−ℓ) − 1, a non-negative estimate of KL(π_θ ‖ π_ref); 0 outside the mask.

    Source: http://joschu.net/blog/kl-approx.html.

    Raises:
        ValueError: the batch carries no reference log-probs.
    """
    if batch.reference_logprobs is None:
        raise ValueError("a KL penalty needs reference_logprobs in the batch")
    gap = _difference(batch.reference_logprobs, logprobs, batch.mask)
    return gap.exp() - gap - 1


@torch.no_grad()
def policy_metrics(
    batch: Batch, outputs: Outputs, totals: Totals, *, clip_low: float, clip_high: float
) -> dict[str, Tensor]:
    """Return token means over the optimizer batch, as shares, and the largest ratio.

    ``clip_low`` and ``clip_high``: fraction of tokens whose gradient the clip removes on that side.
    ``approx_kl_k1``, ``approx_kl_k3``: estimates of KL(π_old ‖ π_θ). ``engine_kl_k3``: the same of KL(engine
    ‖ π_old).
    """
    log_r = log_ratio(batch, outputs.logprobs)
    ratio = log_r.exp()
    gap = engine_gap(batch, outputs.logprobs)
    columns = {
        "clip_low": (ratio < 1 - clip_low) & (batch.advantages < 0),
        "clip_high": (ratio > 1 + clip_high) & (batch.advantages > 0),
        "approx_kl_k1": -log_r,
        "approx_kl_k3": ratio - log_r - 1,
        "engine_kl_k3": gap.exp() - gap - 1,
        "entropy": outputs.entropy,
    }
    shares = {name: token_mean(column.float(), batch.mask, totals) for name, column in columns.items()}
    return {**shares, "ratio_max": torch.where(batch.mask, ratio, 0.0).max()}
