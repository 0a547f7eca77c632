"""Log-probs of the sampled tokens without keeping the logits.

The logits of a batch, [B, T, V], are by far the largest tensor of a training step. Two facts avoid them: only
positions whose next token was sampled need logits at all, and a chunk of logits can be recomputed in the backward
pass from its hidden states. So the backbone runs once over the batch, the head runs over chunks of the gathered
positions, and the memory of tensors with a dimension V has a bound: some chunks are kept, which saves time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from envgym_trainers.batch import Batch
from envgym_trainers.learner.prefix import pack, run_packed, shares_prefixes
from envgym_trainers.models.head import backbone_and_head, logits_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["token_logprobs"]

_KEPT_BYTES = 256 << 20
"""Memory for logits of a linear head that are kept for the backward pass."""


def token_logprobs(
    model: PreTrainedModel, batch: Batch, temperature: float = 1.0, *, chunk: int = 256
) -> tuple[Tensor, Tensor]:
    """Return log-prob and entropy of every sampled token under softmax(logits/T).

    A model whose logits cannot be made of its hidden states in parts is run whole, with a warning.

    Args:
        model: any ``transformers`` causal language model, on the batch's device.
        batch: right-padded.
        temperature: temperature at which the tokens were sampled.
        chunk: positions whose logits are in memory at once, 4·chunk·V bytes per copy.

    Returns:
        logprobs: [B, T] float32 with gradient; ``[b, t]`` belongs to ``ids[b, t]`` given ``ids[b, :t]``; 0
            outside the mask.
        entropy: [B, T] float32 in nats, detached, same alignment; 0 outside the mask.

    Raises:
        ValueError: ``temperature`` or ``chunk`` is not positive.
    """
    if temperature <= 0 or chunk <= 0:
        raise ValueError(f"temperature and chunk must be positive, got {temperature} and {chunk}")
    wanted = batch.mask[:, 1:]
    targets = batch.ids[:, 1:][wanted]
    hidden, head = _states(model, batch, wanted)
    score: Any = _Score.apply
    logprobs, entropy = score(head, targets, temperature, chunk, hidden, *head.parameters())
    return _spread(logprobs, batch.mask), _spread(entropy, batch.mask)


def _states(model: PreTrainedModel, batch: Batch, wanted: Tensor) -> tuple[Tensor, nn.Module]:
    """Return the states at the positions before ``wanted``, [n, H], and the head that makes logits of them.

    Padding is on the right, where causal attention never looks: without a mask for it, the attention kernels take
    their fast causal path.
    """
    head = logits_head(model)
    if head is None:
        return model(input_ids=batch.ids, use_cache=False).logits[:, :-1][wanted], nn.Identity()
    backbone, _ = backbone_and_head(model)
    packed = pack(batch) if shares_prefixes(model, backbone) else None
    if packed is not None:
        return run_packed(backbone, packed)[packed.where[:, :-1][wanted]], head
    return backbone(input_ids=batch.ids, use_cache=False)[0][:, :-1][wanted], head


class _Score(torch.autograd.Function):
    """Log-probs and entropy, both [n], of target ids [n] from hidden states [n, H], in chunks.

    One node holds every chunk, so that the gradient of the output embedding is summed in one place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        head: nn.Module,
        targets: Tensor,
        temperature: float,
        chunk: int,
        hidden: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.head, ctx.temperature, ctx.chunk, ctx.parameters = head, temperature, chunk, parameters
        ctx.save_for_backward(hidden, targets)
        ctx.kept = []
        room = _KEPT_BYTES if isinstance(head, nn.Linear) and any(ctx.needs_input_grad) else 0
        pieces = []
        for states, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            rows, raw = _run(head, states) if room > 0 else (states, head(states))
            pieces.append(_score(_logits(raw.detach(), temperature), ids))
            room -= raw.nbytes
            if room >= 0:
                ctx.kept.append((rows, raw))
        logprobs, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets = ctx.saved_tensors
        trained = [parameter for parameter in ctx.parameters if parameter.requires_grad]
        of_hidden = torch.empty_like(hidden)
        sums: list[Tensor] = [torch.zeros_like(parameter) for parameter in trained]
        kept, ctx.kept = ctx.kept[::-1], []
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, min(start + ctx.chunk, len(hidden)))
            rows, raw = kept.pop() if kept else _run(ctx.head, hidden[part])
            change = _logits(raw.detach(), ctx.temperature).softmax(-1)
            change[torch.arange(len(rows), device=rows.device), targets[part]] -= 1
            change.mul_(-gradient[part, None] / ctx.temperature)
            found = torch.autograd.grad(raw, (rows, *trained), change.to(raw.dtype))
            of_hidden[part] = found[0]
            for total, addend in zip(sums, found[1:], strict=True):
                total += addend
        own = iter(sums)
        of_parameters = (next(own) if parameter.requires_grad else None for parameter in ctx.parameters)
        return (None, None, None, None, of_hidden, *of_parameters)


def _run(head: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return a copy of ``states`` and the head's output on it, with gradient between them alone."""
    with torch.enable_grad():
        rows = states.detach().requires_grad_()
        return rows, head(rows)


def _logits(raw: Tensor, temperature: float) -> Tensor:
    """Return ``raw``/temperature in float32 or wider; at temperature 1 this may be ``raw`` itself."""
    wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
    return wide if temperature == 1 else wide / temperature


def _score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probs and entropy, both [n], from logits [n, V] and target ids [n]."""
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    entropy = normaliser - logits.softmax(-1).mul_(logits).sum(-1)
    return logprobs, entropy


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put ``values`` [n] where ``mask`` [B, T] is True, 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
