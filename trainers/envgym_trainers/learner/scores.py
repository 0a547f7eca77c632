"""Log-probs and entropy from hidden states, in chunks of the logits [n, V] that a head makes of them.

A chunk is computed again in the backward pass. A linear head, which most models have, keeps the probabilities of
some chunks instead, and does without autograd, which would copy chunks and the gradient of the output embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["score"]

_KEPT_BYTES = 256 << 20
"""Memory for the probabilities that a linear head keeps for the backward pass."""
_BLOCK = 64
"""Rows of logits that are worked on at once; they fit in a CPU's cache."""


def score(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, chunk: int
) -> tuple[Tensor, Tensor]:
    """Return log-probs of ``targets`` and entropies under softmax(logits/T), both [n] in float32 or wider.

    One node of autograd holds every chunk, so that the gradient of the output embedding is summed in one place.
    The entropy has no gradient.

    Args:
        head: makes logits [n, V] of hidden states [n, H].
        hidden: [n, H].
        targets: [n] int64.
        temperature: T.
        chunk: rows of logits that are made at once.
    """
    # A subclass may do more than multiply.
    linear = type(head) is nn.Linear and head.bias is None
    function: Any = (_LinearHead if linear else _AnyHead).apply
    logprobs, entropy = function(head, targets, temperature, chunk, hidden, *head.parameters())
    return logprobs, entropy


class _LinearHead(torch.autograd.Function):
    """Logits are products of the states with one matrix."""

    @staticmethod
    def forward(
        ctx: Any, head: nn.Linear, targets: Tensor, temperature: float, chunk: int, hidden: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.head, ctx.temperature, ctx.chunk, ctx.kept = head, temperature, chunk, []
        ctx.save_for_backward(hidden, targets, weight)
        room = _KEPT_BYTES if any(ctx.needs_input_grad) else 0

        def make(states: Tensor) -> Tensor:
            nonlocal room
            logits = _logits(head(states), temperature)
            room -= logits.nbytes
            if room >= 0:
                ctx.kept.append(logits)
            return logits

        return _in_chunks(ctx, hidden, targets, make)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, weight = ctx.saved_tensors
        kept, ctx.kept = ctx.kept[::-1], []  # used up: they become the gradient
        of_hidden = torch.empty_like(hidden)
        of_weight = None
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            states, ids = hidden[part], targets[part]
            if kept:
                change = kept.pop()
            else:
                change = _logits(ctx.head(states), ctx.temperature)
                _to_probabilities(change, ids)
            change = _gradient(change, ids, gradient[part] / ctx.temperature).to(weight.dtype)
            if ctx.needs_input_grad[4]:
                of_hidden[part] = change @ weight
            if ctx.needs_input_grad[5]:
                of_weight = change.T @ states if of_weight is None else of_weight.addmm_(change.T, states)
        return None, None, None, None, of_hidden, of_weight


class _AnyHead(torch.autograd.Function):
    """Logits are whatever the head makes of the states; their gradient is autograd's."""

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
        # A copy: the identity, which stands for a head whose logits are there already, gives the states.
        return _in_chunks(ctx, hidden, targets, lambda states: _logits(head(states), temperature).clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets = ctx.saved_tensors
        trained = [parameter for parameter in ctx.parameters if parameter.requires_grad]
        of_hidden = torch.empty_like(hidden)
        sums: list[Tensor] = [torch.zeros_like(parameter) for parameter in trained]
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            states = hidden[part].detach().requires_grad_()
            with torch.enable_grad():
                raw = ctx.head(states)
            change = _logits(raw.detach(), ctx.temperature).softmax(-1)
            change = _gradient(change, targets[part], gradient[part] / ctx.temperature)
            found = torch.autograd.grad(raw, (states, *trained), change.to(raw.dtype))
            of_hidden[part] = found[0]
            for total, addend in zip(sums, found[1:], strict=True):
                total += addend
        own = iter(sums)
        of_parameters = (next(own) if parameter.requires_grad else None for parameter in ctx.parameters)
        return (None, None, None, None, of_hidden, *of_parameters)


def _in_chunks(
    ctx: Any, hidden: Tensor, targets: Tensor, make: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return log-probs and entropies; ``make`` gives a chunk's logits, which become its probabilities."""
    pieces = [
        _to_probabilities(make(states), ids)
        for states, ids in zip(hidden.split(ctx.chunk), targets.split(ctx.chunk), strict=True)
    ]
    logprobs, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
    ctx.mark_non_differentiable(entropy)
    return logprobs, entropy


def _logits(raw: Tensor, temperature: float) -> Tensor:
    """Return ``raw``/temperature in float32 or wider; at temperature 1 this may be ``raw`` itself."""
    wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
    return wide if temperature == 1 else wide / temperature


def _to_probabilities(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits [n, V] into probabilities, in place; return log-probs of ``targets`` and entropies, both [n]."""
    logprobs, entropy = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    for start in range(0, len(logits), _BLOCK):
        part = slice(start, start + _BLOCK)
        log_p = logits[part].log_softmax(-1)
        logprobs[part] = log_p.gather(-1, targets[part, None]).squeeze(-1)
        probabilities = torch.exp(log_p, out=logits[part])
        entropy[part] = -log_p.mul_(probabilities).sum(-1)
    return logprobs, entropy


def _gradient(probabilities: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Turn probabilities [n, V], in place, into the gradient of Σ scale · log-prob by the logits."""
    probabilities.mul_(-scale[:, None])
    probabilities[torch.arange(len(targets), device=targets.device), targets] += scale
    return probabilities
