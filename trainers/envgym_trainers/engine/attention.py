"""The engine's attention: rows of any length in one flat batch, against keys and values where they are stored.

All new tokens of a pass stand one after another, [1, N], so that no product of a layer runs padding. Rows that
decode read the keys of a pool as one view; a row that is extended reads its own. Nothing is copied, and there is a
mask only where rows of one pool differ in length or a layer has a window.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from envgym_trainers.engine.cache import Pool
from envgym_trainers.engine.spans import Span

__all__ = ["ATTENTION", "Decoding", "Extension", "PassPlan", "current_plan"]

_BLOCK = 512
"""Queries of a row that are worked on at once where a mask is needed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extension:
    """New tokens of one row."""

    pool: Pool
    slot: int
    start: int
    """Tokens of the row that are cached."""
    tokens: slice
    """Where the new ones stand in the batch."""

    def attend(self, layer: int, states: _States) -> Tensor:
        """Write keys and values of the new tokens; return what they attend to, [Q, heads, D]."""
        keys, values = (stored[self.slot] for stored in self.pool.layer(layer, states.key, states.value))
        end = self.start + self.tokens.stop - self.tokens.start
        keys[:, self.start : end] = states.key[0, :, self.tokens]
        values[:, self.start : end] = states.value[0, :, self.tokens]
        query = states.query[:, :, self.tokens]
        whole = states.plain and states.span.first(end - 1) == 0 and keys.shape[2] == values.shape[2]
        if whole and (not self.start or query.device.type != "cpu"):
            return _causal(query, keys[None, :, :end], values[None, :, :end], states)[0]
        parts = []
        for low in range(self.start, end, _BLOCK):
            high = min(low + _BLOCK, end)
            first = states.span.first(low)
            positions = torch.arange(low, high, device=query.device)
            mask = _hiding(states.span, positions, first, high, query)[None, None]
            block = query[:, :, low - self.start : high - self.start]
            parts.append(_weigh(block, keys[None, :, first:high], values[None, :, first:high], mask, states))
        return torch.cat(parts, 2)[0].transpose(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoding:
    """One new token of each of the first rows of a pool."""

    pool: Pool
    lengths: list[int]
    """Cached tokens of the rows in slots 0, 1, …, and so the position of each one's new token."""
    tokens: slice
    """Where they stand in the batch, in the order of their slots."""
    slots: Tensor
    positions: Tensor
    masks: dict[Span, tuple[int, Tensor | None]] = field(default_factory=dict)
    """First visible position and mask, [n, 1, 1, T], by span; made when a layer first asks."""

    def attend(self, layer: int, states: _States) -> Tensor:
        """Write keys and values of the new tokens; return what they attend to, [n, heads, D]."""
        keys, values = self.pool.layer(layer, states.key, states.value)
        keys[self.slots, :, self.positions] = states.key[0, :, self.tokens].transpose(0, 1)
        values[self.slots, :, self.positions] = states.value[0, :, self.tokens].transpose(0, 1)
        query = states.query[0, :, self.tokens].transpose(0, 1)[:, :, None]
        first, mask = self._mask(states)
        seen = slice(0, len(self.lengths)), slice(None), slice(first, max(self.lengths) + 1)
        return _weigh(query, keys[seen], values[seen], mask, states)[:, :, 0]

    def _mask(self, states: _States) -> tuple[int, Tensor | None]:
        span = states.span
        if span not in self.masks:
            first, last = min(map(span.first, self.lengths)), max(self.lengths)
            equal = min(self.lengths) == last and len(set(map(span.first, self.lengths))) == 1
            mask = None if equal else _hiding(span, self.positions, first, last + 1, states.query)[:, None, None]
            self.masks[span] = first, mask
        return self.masks[span]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PassPlan:
    """Which rows the tokens of a pass belong to."""

    parts: list[Extension | Decoding]
    spans: list[Span]
    """What each layer sees."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _States:
    """What one layer attends with; queries [1, heads, N, D], keys and values [1, heads/G, N, D]."""

    query: Tensor
    key: Tensor
    value: Tensor
    span: Span
    scale: float
    softcap: float | None
    sinks: Tensor | None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as the plan of the pass says; the signature is that of transformers' attention functions."""
    layer: Any = module.layer_idx
    plan = current_plan.get()
    states = _States(
        query=query,
        key=key,
        value=value,
        span=plan.spans[layer],
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        sinks=s_aux,
    )
    attended = [part.attend(layer, states) for part in plan.parts]
    return (attended[0] if len(attended) == 1 else torch.cat(attended))[None], None


def _causal(query: Tensor, key: Tensor, value: Tensor, states: _States) -> Tensor:
    """Return [1, Q, heads, D] for the last Q tokens of a row that sees all of its past."""
    ahead = key.shape[2] - query.shape[2]
    bias: Any = causal_lower_right(query.shape[2], key.shape[2]) if ahead else None
    attended = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, is_causal=not ahead, scale=states.scale, enable_gqa=True
    )
    return attended.transpose(1, 2)


def _weigh(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, states: _States) -> Tensor:
    """Return [B, heads, Q, D]; the heads that share keys are one product, so that keys are read once.

    Args:
        query: [B, heads, Q, D]
        key: [B, heads/G, T, D]
        value: [B, heads/G, T, D]
        mask: −∞ where a token is not seen, else 0. [B or 1, 1, Q, T]
        states: scale, soft cap and sinks.
    """
    batch, heads, count, _ = query.shape
    groups = heads // key.shape[1]
    grouped = query.reshape(batch, key.shape[1], groups * count, -1)
    if mask is not None and count > 1:
        mask = mask.repeat(1, 1, groups, 1)
    if states.plain:
        attended = nn.functional.scaled_dot_product_attention(
            grouped, key, value, attn_mask=mask, scale=states.scale
        )
        return attended.reshape(batch, heads, count, -1)
    scores = (grouped @ key.transpose(2, 3)).mul_(states.scale)
    if states.softcap is not None:
        scores = scores.div_(states.softcap).tanh_().mul_(states.softcap)
    if mask is not None:
        scores = scores.add_(mask)
    if states.sinks is None:
        weights = scores.softmax(-1)
    else:
        # A sink takes a share of each query's attention and gives nothing.
        sinks = states.sinks.to(scores.dtype).view(1, key.shape[1], groups, 1, 1)
        sinks = sinks.expand(batch, -1, -1, count, 1).reshape(batch, key.shape[1], groups * count, 1)
        weights = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
    return (weights @ value).reshape(batch, heads, count, -1)


def _hiding(span: Span, positions: Tensor, first: int, end: int, like: Tensor) -> Tensor:
    """Return 0 where those at ``positions`` see the tokens ``first`` to ``end``, else −∞; [Q, end − first]."""
    keys, queries = torch.arange(first, end, device=positions.device), positions[:, None]
    hidden = keys > queries
    if span.kind == "sliding":
        hidden |= keys <= queries - span.size
    elif span.kind == "chunked":
        hidden |= keys // span.size != queries // span.size
    return torch.zeros_like(hidden, dtype=like.dtype).masked_fill_(hidden, -torch.inf)


current_plan: ContextVar[PassPlan] = ContextVar("current_plan")
"""The plan of the pass that runs; not every model hands its arguments on to its layers."""
ATTENTION = "envgym_engine"
"""The name under which transformers knows it."""
AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
