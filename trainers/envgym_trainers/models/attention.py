"""Attention masks that the caller makes instead of the model."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["attention_mask", "partial_attention"]

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
