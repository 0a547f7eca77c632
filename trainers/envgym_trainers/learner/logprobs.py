"""Log-probs of the sampled tokens without keeping the logits.

The logits of a batch, [B, T, V], are by far the largest tensor of a training step. Two facts avoid them: only
positions whose next token was sampled need logits at all, and a chunk of logits can be recomputed in the backward
pass from its hidden states. So the backbone runs once over the batch, the head runs over chunks of the gathered
positions, and the memory of tensors with a dimension V has a bound: some chunks are kept, which saves time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from envgym_trainers.batch import Batch
from envgym_trainers.learner.prefix import NO_PREFIX, Prefix
from envgym_trainers.learner.scores import score
from envgym_trainers.learner.states import hidden_states, shares_prefixes
from envgym_trainers.models.head import backbone_and_head, logits_head
from envgym_trainers.models.memory import release_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["token_logprobs"]


def token_logprobs(
    model: PreTrainedModel,
    batch: Batch,
    temperature: float = 1.0,
    *,
    prefix: Prefix = NO_PREFIX,
    chunk: int = 512,
    frugal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return log-prob and entropy of every sampled token under softmax(logits/T).

    A model whose logits cannot be made of its hidden states in parts is run whole, with a warning.

    Args:
        model: any ``transformers`` causal language model, on the batch's device.
        batch: right-padded.
        temperature: temperature at which the tokens were sampled.
        prefix: what the samples start with and has run already; only of a model that shares prefixes.
        chunk: positions whose logits are in memory at once, 4·chunk·V bytes per copy.
        frugal: give freed memory back to the system before the logits are made, at the height of a step.

    Returns:
        logprobs: [B, T] float32 with gradient; ``[b, t]`` belongs to ``ids[b, t]`` given ``ids[b, :t]``; 0
            outside the mask.
        entropy: [B, T] float32 in nats, detached, same alignment; 0 outside the mask.

    Raises:
        ValueError: ``temperature`` or ``chunk`` is not positive.
    """
    if temperature <= 0 or chunk <= 0:
        raise ValueError(f"temperature and chunk must be positive, got {temperature} and {chunk}")
    hidden, head = _states(model, batch, prefix)
    if frugal:
        release_memory()
    logprobs, entropy = score(head, hidden, batch.ids[batch.mask], temperature, chunk)
    return _spread(logprobs, batch.mask), _spread(entropy, batch.mask)


def _states(model: PreTrainedModel, batch: Batch, prefix: Prefix) -> tuple[Tensor, nn.Module]:
    """Return the states before the n sampled tokens, [n, H], and the head that makes logits of them."""
    head = logits_head(model)
    wanted = batch.mask.roll(-1, 1)  # no sample's first token was sampled, so nothing comes round to the end
    if head is None:
        return model(input_ids=batch.ids, use_cache=False).logits[wanted], nn.Identity()
    backbone, _ = backbone_and_head(model)
    if shares_prefixes(model):
        return hidden_states(backbone, batch, wanted, prefix), head
    # Padding is on the right, where causal attention never looks: without a mask for it, the attention kernels
    # take their fast causal path.
    return backbone(input_ids=batch.ids, use_cache=False)[0][wanted], head


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put ``values`` [n] where ``mask`` [B, T] is True, 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
