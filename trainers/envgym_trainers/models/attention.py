"""Attention whose masks or rows the caller makes instead of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["attention_mask", "partial_attention", "run_as_rows", "understands_rows"]

_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
_WINDOWS = ("sliding_window", "attention_chunk_size")


def attention_mask(model: PreTrainedModel, visible: torch.Tensor) -> torch.Tensor:
    """Return a mask in the form that the model expects as ``attention_mask``.

    Args:
        model: any model; its attention implementation decides the form of the mask.
        visible: bool, True where a token may attend. [B, 1, Q, K]

    Returns:
        the mask, boolean or additive. [B, 1, Q, K]
    """
    if model.config._attn_implementation != "eager":
        return visible
    # Eager attention adds its mask to the scores; the other implementations take a boolean one.
    blind = torch.finfo(model.dtype).min
    return torch.zeros_like(visible, dtype=model.dtype).masked_fill_(~visible, blind)


def partial_attention(config: PreTrainedConfig) -> dict[str, int]:
    """Return the kinds of layers that do not attend to the whole past; empty if every layer does.

    Returns:
        window in tokens by the name of its setting, and 0 by the name of each kind of layer without attention.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    if kinds == {"full_attention"}:
        return {}
    found = dict.fromkeys(sorted(kinds - _KINDS), 0)
    windows = {name: getattr(text, name, None) for name in _WINDOWS}
    return found | {name: window for name, window in windows.items() if window is not None}


def understands_rows(model: PreTrainedModel) -> bool:
    """Let the model's attention see rows, and return whether it can; only scaled-dot-product attention does.

    Other calls of the model are unchanged: without rows, its attention is transformers' own.
    """
    untyped: Any = model
    whole = untyped.get_base_model() if hasattr(model, "get_base_model") else untyped
    if whole.config._attn_implementation == "sdpa":
        whole.set_attn_implementation(_ROWS)
    return bool(whole.config._attn_implementation == _ROWS)


def run_as_rows(
    backbone: nn.Module, ids: torch.Tensor, positions: torch.Tensor, where: torch.Tensor, sources: torch.Tensor
) -> torch.Tensor:
    """Return the hidden states of N tokens that B rows of at most T tokens share, [1, N, H].

    Each row attends to itself alone, and causally; right padding, then, needs no mask.

    Args:
        backbone: of a model that ``understands_rows``.
        ids: [1, N] int64.
        positions: [1, N] int64.
        where: [B, T] int64: which of the N tokens stands there; any on padding.
        sources: [N] int64: index among the B·T of one place where the token stands.
    """
    # transformers hands a mask of four dimensions on as it is, and makes none of its own.
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device)
    states: torch.Tensor = backbone(
        input_ids=ids,
        attention_mask=no_mask,
        position_ids=positions,
        use_cache=False,
        shared_rows=(where, sources),
    )[0]
    return states


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    shared_rows: tuple[torch.Tensor, torch.Tensor] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as ``sdpa_attention_forward`` does, in rows where they are given. Queries: [B, heads, T, D]."""
    if shared_rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    where, sources = shared_rows
    q, k, v = (_lay_out(tensor, where) for tensor in (query, key, value))
    attended, _ = sdpa_attention_forward(module, q, k, v, None, **{**options, "is_causal": True})
    places = nn.functional.embedding(sources, attended.flatten(0, 1).flatten(1))
    return places.view(1, -1, *attended.shape[2:]), None


def _lay_out(tokens: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Return [B, heads, T, D] from [1, heads, N, D]."""
    heads, count, width = tokens.shape[1:]
    flat = tokens[0].transpose(0, 1).reshape(count, heads * width)
    # On a CPU the gradient of an embedding is many times as fast as that of an index.
    return nn.functional.embedding(where, flat).view(*where.shape, heads, width).transpose(1, 2)


_ROWS = "envgym_rows"
AttentionInterface.register(_ROWS, _attend)
AttentionMaskInterface.register(_ROWS, sdpa_mask)
