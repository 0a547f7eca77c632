"""Sample tokens from logits, reproducibly for any composition of the batch."""

from __future__ import annotations

import torch

__all__ = ["choose"]


def choose(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one token per row by inverting the cumulative distribution.

    Each row has its own uniform number, so its draw depends on its logits only. Temperature 0 takes the most
    likely token and reports its log-probability at temperature 1.

    Args:
        logits: [B, V]
        uniform: numbers in [0, 1). [B]
        temperature: [B]

    Returns:
        token ids [B] and their log-probabilities, float32 [B].
    """
    greedy = temperature == 0
    scaled = logits.float() / torch.where(greedy, 1.0, temperature)[:, None]
    logprobs = torch.log_softmax(scaled, dim=-1)
    # float64: with 10^5 tokens a float32 running sum is off by more than a rare token's probability.
    cumulative = logprobs.double().exp_().cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Strictly below the total, or rounding could select beyond the last token of positive probability.
    target = torch.minimum(uniform.double()[:, None] * total, total.nextafter(torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, target, right=True)[:, 0]
    tokens = torch.where(greedy, logprobs.argmax(dim=-1), drawn)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]
