"""Attention whose masks or rows the caller makes instead of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from envgym_trainers.models.causal import causal_attention

__all__ = [
    "KeysValues",
    "Part",
    "Rows",
    "layers_without_attention",
    "partial_attention",
    "run_as_rows",
    "understands_rows",
]

_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
_WINDOWS = ("sliding_window", "attention_chunk_size")


def partial_attention(config: PreTrainedConfig) -> dict[str, int]:
    """Return the kinds of layers that do not attend to the whole past; empty if every layer does.

    Returns:
        window in tokens by the name of its setting, and 0 by the name of each kind of layer without attention.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    if kinds == {"full_attention"}:
        return {}
    found = dict.fromkeys(layers_without_attention(config), 0)
    windows = {name: getattr(text, name, None) for name in _WINDOWS}
    return found | {name: window for name, window in windows.items() if window is not None}


def layers_without_attention(config: PreTrainedConfig) -> list[str]:
    """Return the kinds of a model's layers that keep something else of the past than keys and values."""
    return sorted(set(getattr(config.get_text_config(), "layer_types", None) or []) - _KINDS)


def understands_rows(model: PreTrainedModel) -> bool:
    """Let the model's attention see rows, and return whether it can; only scaled-dot-product attention does.

    Other calls of the model are unchanged: without rows, its attention is transformers' own.
    """
    untyped: Any = model
    whole = untyped.get_base_model() if hasattr(model, "get_base_model") else untyped
    if whole.config._attn_implementation == "sdpa":
        whole.set_attn_implementation(_ROWS)
    return bool(whole.config._attn_implementation == _ROWS)


KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, [B, heads, T, D] each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Rows that attention works on at once, [B, T] places with any of N tokens, right-padded."""

    where: Tensor
    """[B, T] int64: which token stands there, any on padding."""
    ahead: int = 0
    """Places at the front of every row that are only looked at: their tokens have queries in another part."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """The rows that attention is to see, where they are not those that the other layers work on."""

    parts: Sequence[Part] = ()
    """Where the N tokens stand; none if the rows are laid out already."""
    sources: Tensor | None = None
    """[N] int64: index of each token's query among those of all parts, one after another; None as ``parts``."""
    before: Mapping[int, KeysValues] = field(default_factory=dict)
    """Keys and values, by layer, of tokens that every row starts with; B is 1."""
    masked: bool = False
    """Attend under the model's own mask instead, to tell what differs without rows."""
    seen: dict[int, KeysValues] | None = None
    """Filled with the rows' keys and values, by layer, where it is given."""


def run_as_rows(backbone: nn.Module, ids: Tensor, positions: Tensor, rows: Rows) -> Tensor:
    """Return the hidden states of tokens, [B, T, H], or [1, N, H] of N tokens that rows share.

    Each row attends to itself alone, and causally; right padding, then, needs no mask.

    Args:
        backbone: of a model that ``understands_rows``.
        ids: int64. [B, T] or [1, N]
        positions: int64, of the same shape.
        rows: what attention sees.
    """
    # transformers hands a mask of four dimensions on as it is, and makes none of its own.
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device)
    states: Tensor = backbone(
        input_ids=ids, attention_mask=no_mask, position_ids=positions, use_cache=False, rows=rows
    )[0]
    return states


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    rows: Rows | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as ``sdpa_attention_forward`` does, in rows where they are given. Queries: [B, heads, T, D]."""
    if rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    dtype = query.dtype
    if query.device.type == "cpu":  # whose 16-bit kernels of attention are slow, backwards above all
        query, key, value = (
            tensor.to(torch.promote_types(dtype, torch.float32)) for tensor in (query, key, value)
        )
    if rows.masked:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0].to(dtype), None
    layer: Any = getattr(module, "layer_idx", None)
    if rows.seen is not None:
        rows.seen[layer] = key, value
    before = rows.before[layer] if rows.before else None
    if rows.sources is None:
        return _attend_after(before, query, key, value, options).to(dtype), None
    flat = [_flat(tensor) for tensor in (query, key, value)]
    attended = []
    for part in rows.parts:
        own = _lay_out(flat[0], part.where[:, part.ahead :], query)
        looked_at = (_lay_out(flat[1], part.where, key), _lay_out(flat[2], part.where, value))
        attended.append(_attend_after(before, own, *looked_at, options).flatten(2).flatten(0, 1))
    states = nn.functional.embedding(rows.sources, torch.cat(attended))
    return states.view(1, len(states), query.shape[1], -1).to(dtype), None


def _attend_after(
    before: KeysValues | None, query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]
) -> Tensor:
    """Return [B, Q, heads, D] for the last Q tokens of rows with K keys, or with more ``before`` them."""
    if before is not None:
        key, value = (
            torch.cat([first.expand(len(own), -1, -1, -1), own], 2)
            for first, own in zip(before, (key, value), strict=True)
        )
    return _attend_causally(query, key, value, options)


def _attend_causally(query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Return [B, Q, heads, D] for the last Q tokens of rows with K keys."""
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    if query.device.type == "cpu" and not options.get("dropout"):
        attended: Tensor = causal_attention(query, key, value, scale)[0]
        return attended
    # The fast kernels of other devices want as many queries as keys, and as many heads of each.
    ahead = key.shape[2] - query.shape[2]
    key, value = (repeat_kv(tensor, query.shape[1] // tensor.shape[1]) for tensor in (key, value))
    attended = nn.functional.scaled_dot_product_attention(
        nn.functional.pad(query, (0, 0, ahead, 0)),
        key,
        value,
        dropout_p=options.get("dropout", 0.0),
        is_causal=True,
        scale=scale,
    )
    return attended[:, :, ahead:].transpose(1, 2)


def _flat(tokens: Tensor) -> Tensor:
    """Return [N, heads·D] from [1, heads, N, D]."""
    return tokens[0].transpose(0, 1).flatten(1)


def _lay_out(flat: Tensor, where: Tensor, like: Tensor) -> Tensor:
    """Return [B, heads, T, D] from [N, heads·D], with the heads and the D of ``like`` [1, heads, N, D]."""
    # On a CPU the gradient of an embedding is many times as fast as that of an index.
    rows: Tensor = nn.functional.embedding(where, flat).unflatten(2, (-1, like.shape[-1]))
    return rows.transpose(1, 2)


_ROWS = "envgym_rows"
AttentionInterface.register(_ROWS, _attend)
AttentionMaskInterface.register(_ROWS, sdpa_mask)
