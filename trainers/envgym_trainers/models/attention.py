"""Attention masks that the caller makes instead of the model."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["attention_mask", "partial_attention"]

_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
_WINDOWS = ("sliding_window", "attention_chunk_size")


def attention_mask(model: PreTrainedModel, visible: torch.Tensor) -> torch.Tensor:
    """Return the mask in the form that the model reads as ``attention_mask``.

    Args:
        model: any; its attention says which kind of mask it reads.
        visible: bool, True where a token may look. [B, 1, Q, K]

    Returns:
        the same as the model reads it. [B, 1, Q, K]
    """
    if model.config._attn_implementation != "eager":
        return visible
    # Eager attention adds its mask to the scores; the other kinds read a boolean one.
    blind = torch.finfo(model.dtype).min
    return torch.zeros_like(visible, dtype=model.dtype).masked_fill_(~visible, blind)


def partial_attention(config: PreTrainedConfig) -> dict[str, int]:
    """Find layers that do not attend to the whole past; empty where every layer attends to everything.

    Returns:
        tokens that such layers look back, by the name of the setting that says so; 0 by the kind of layer where
        that has no attention at all.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    if kinds == {"full_attention"}:
        return {}
    found = dict.fromkeys(sorted(kinds - _KINDS), 0)
    windows = {name: getattr(text, name, None) for name in _WINDOWS}
    return found | {name: window for name, window in windows.items() if window is not None}
