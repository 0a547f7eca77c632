"""Sample tokens from logits, reproducibly for any composition of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from envgym_trainers.engine.interface import SamplingParams

__all__ = ["choose"]

_BLOCK = 256
"""Tokens of the vocabulary that are added up before the draw looks at single ones."""


def choose(logits: Tensor, uniform: Tensor, params: Sequence[SamplingParams]) -> tuple[Tensor, Tensor]:
    """Sample one token per row by inverting the cumulative distribution.

    Each row has its own uniform number, so its draw depends on its logits only. Temperature 0 takes the most
    likely token and reports its log-probability at temperature 1. The others divide by the temperature, keep the
    ``top_k`` most likely tokens, of these the fewest that have ``top_p`` of the probability together, and of these
    the ones that have at least ``min_p`` of the highest probability. This is the order of transformers.

    Args:
        logits: [B, V]
        uniform: numbers in [0, 1). [B]
        params: how to sample in each row. [B]

    Returns:
        token ids [B] and their log-probabilities among the tokens that could be drawn, float32 [B].
    """
    temperatures = [one.temperature for one in params]
    scaled = logits.float()
    if set(temperatures) != {1.0}:
        scaled = scaled / torch.tensor([t or 1.0 for t in temperatures], device=logits.device)[:, None]
    cut = [i for i, one in enumerate(params) if one.temperature and _truncates(one)]
    if cut:
        scaled = scaled.clone()
        scaled[cut] = _truncate(scaled[cut], [params[i] for i in cut])
    tokens, log_sum_exp = _draw(scaled, uniform)
    if 0 in temperatures:
        greedy = torch.tensor([t == 0 for t in temperatures], device=logits.device)
        tokens = torch.where(greedy, scaled.argmax(dim=-1), tokens)
    return tokens, (scaled.gather(1, tokens[:, None])[:, 0] - log_sum_exp).float()


def _truncates(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0


def _truncate(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Return the logits, [B, V], with −∞ for what must not be drawn; among equals the lower ids stay."""
    size = logits.shape[1]
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(size, device=logits.device)
    most = torch.tensor([one.top_k or size for one in params], device=logits.device)
    ordered = ordered.masked_fill(rank >= most[:, None], -torch.inf)
    probabilities = ordered.double().softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    share = torch.tensor([one.top_p for one in params], dtype=torch.float64, device=logits.device)
    least = torch.tensor([one.min_p for one in params], dtype=torch.float64, device=logits.device)
    dropped = (before >= share[:, None]) & (share < 1)[:, None]
    dropped |= probabilities < least[:, None] * probabilities[:, :1]
    dropped[:, 0] = False
    return torch.full_like(logits, -torch.inf).scatter(1, ids, ordered.masked_fill(dropped, -torch.inf))


def _draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return the token where each row's cumulative distribution passes ``uniform``, and log Σ exp, both [B].

    In two steps, first a block and then a token in it: to add up a whole vocabulary in float64 takes as long as a
    layer. float64, because with 10^5 tokens a float32 running sum is off by more than a rare token's probability.
    """
    highest = logits.amax(-1, keepdim=True)
    weights = (logits - highest).exp_()
    if rest := -weights.shape[1] % _BLOCK:
        weights = pad(weights, (0, rest))
    blocks = weights.unflatten(1, (-1, _BLOCK))
    sums = blocks.sum(-1, dtype=torch.float64)
    block, left = _pass(sums, uniform.double(), relative=True)
    inside = blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK))[:, 0]
    place, _ = _pass(inside.double(), left, relative=False)
    return block * _BLOCK + place, highest[:, 0] + sums.sum(-1).log()


def _pass(weights: Tensor, target: Tensor, *, relative: bool) -> tuple[Tensor, Tensor]:
    """Return where the running sum of ``weights`` [B, n] passes ``target`` [B], and what of it is left there."""
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    wanted = target * total if relative else target
    # Strictly below the total, or rounding could select beyond the last weight above 0.
    wanted = torch.minimum(wanted, total.nextafter(torch.zeros_like(total)))
    found = torch.searchsorted(cumulative, wanted[:, None], right=True)[:, 0]
    before = cumulative.gather(1, found[:, None])[:, 0] - weights.gather(1, found[:, None])[:, 0]
    return found, (wanted - before).clamp(min=0)
