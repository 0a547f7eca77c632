"""Causal attention on a CPU, whose queries may stand at the end of a longer row of keys.

torch's own kernel works on blocks of 64 queries of one head in short rows; here the heads that share keys are one
product, and rows may have keys in front that have no queries. A custom operator, so that gradient checkpointing
can keep its result as that of any other product.

The backward pass makes the probabilities again from the log-sum-exp of each query's scores: Dao et al.,
FlashAttention, arXiv 2205.14135, algorithm 4 (appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["OPERATOR", "causal_attention"]

_BLOCK = 64
"""Queries of a row that are worked on at once: their scores fit in a CPU's cache."""


@torch.library.custom_op("envgym::causal_attention", mutates_args=(), device_types="cpu")
def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return attention where query i of Q sees the first K − Q + i + 1 of K keys.

    Args:
        query: [B, heads, Q, D], on a CPU.
        key: [B, heads/G, K, D] with K ≥ Q; G heads in a row share keys and values.
        value: [B, heads/G, K, D].
        scale: factor of the scores.

    Returns:
        attended: [B, Q, heads, D].
        log_sum_exp: of the scaled scores. [B·heads/G, G, Q]
    """
    queries, keys, values = _by_keys(query * scale, key), key.flatten(0, 1), value.flatten(0, 1)
    attended = query.new_empty(query.shape[0], query.shape[2], query.shape[1], query.shape[3])
    log_sum_exp = query.new_empty(queries.shape[:3])
    scratch = _Scratch(queries, keys)
    for block, seen in _blocks(query, key):
        part = queries[:, :, block]
        scores = scratch.scores(part.flatten(1, 2), keys[:, :seen], part.shape[2])
        highest = scores.amax(-1, keepdim=True)
        sums = scores.sub_(highest).exp_().sum(-1, keepdim=True)
        result = torch.bmm(scores, values[:, :seen]).div_(sums).view(part.shape)
        _by_heads(attended[:, block], part).copy_(result.view(len(query), -1, *part.shape[1:]))
        log_sum_exp[:, :, block] = (highest + sums.log_()).view(part.shape[:3])
    return attended, log_sum_exp


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, attended, log_sum_exp = ctx.saved_tensors
    queries, keys, values = _by_keys(query * ctx.scale, key), key.flatten(0, 1), value.flatten(0, 1)
    of_queries, of_keys, of_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    levels = _by_heads((gradient * attended).sum(-1, keepdim=True), queries).reshape(*queries.shape[:3], 1)
    scratch, other = _Scratch(queries, keys), _Scratch(queries, keys)
    for block, seen in _blocks(query, key):
        part = queries[:, :, block]
        flat = part.flatten(1, 2)
        change = _by_heads(gradient[:, block], part).reshape(flat.shape)
        probabilities = scratch.scores(flat, keys[:, :seen], part.shape[2])
        probabilities.sub_(log_sum_exp[:, :, block].reshape(len(flat), -1, 1)).exp_()
        of_values[:, :seen].baddbmm_(probabilities.transpose(1, 2), change)
        of_scores = torch.bmm(change, values[:, :seen].transpose(1, 2), out=other.take(probabilities.shape))
        of_scores.sub_(levels[:, :, block].reshape(len(flat), -1, 1)).mul_(probabilities)
        of_queries[:, :, block] = torch.bmm(of_scores, keys[:, :seen]).view(part.shape)
        of_keys[:, :seen].baddbmm_(of_scores.transpose(1, 2), flat)
    of_queries *= ctx.scale
    return of_queries.view(query.shape), of_keys.view(key.shape), of_values.view(value.shape), None


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)


OPERATOR: Any = torch.ops.envgym.causal_attention.default
"""What a dispatch mode sees of ``causal_attention``."""

causal_attention.register_autograd(_backward, setup_context=_keep)


def _by_keys(query: Tensor, key: Tensor) -> Tensor:
    """Return the queries with those that share keys beside one another, [B·heads/G, G, Q, D]."""
    return query.reshape(key.shape[0] * key.shape[1], -1, *query.shape[2:])


def _by_heads(block: Tensor, like: Tensor) -> Tensor:
    """Return a view of [B, n, heads, D] as [B, heads/G, G, n, D], with the G and n of ``like`` [·, G, n, D]."""
    grouped: Tensor = block.unflatten(2, (-1, like.shape[1]))
    return grouped.permute(0, 2, 3, 1, 4)


def _blocks(query: Tensor, key: Tensor) -> Iterator[tuple[slice, int]]:
    """Yield blocks of queries and how many keys the last of each sees."""
    count, ahead = query.shape[2], key.shape[2] - query.shape[2]
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        yield slice(start, end), ahead + end


class _Scratch:
    """Memory for the scores of one block after another, which stays in the cache."""

    def __init__(self, queries: Tensor, keys: Tensor) -> None:
        rows = queries.shape[0] * queries.shape[1] * min(_BLOCK, queries.shape[2])
        self._memory = queries.new_empty(rows * keys.shape[1])
        self._later = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool).triu_(1)

    def take(self, shape: torch.Size) -> Tensor:
        return self._memory[: shape.numel()].view(shape)

    def scores(self, queries: Tensor, keys: Tensor, count: int) -> Tensor:
        """Return the scores of ``count`` queries of each head, −∞ for keys that one does not see."""
        rows, seen = queries.shape[1], keys.shape[1]
        scores = torch.bmm(queries, keys.transpose(1, 2), out=self.take(torch.Size((len(keys), rows, seen))))
        scores.view(len(keys), -1, count, seen)[..., -count:].masked_fill_(self._later[:count, :count], -math.inf)
        return scores
