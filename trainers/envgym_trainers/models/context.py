"""How long a conversation may be where a recipe does not say: as the model has it, as far as memory goes."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["NEW_MODEL_CONTEXT", "bytes_per_token", "cache_memory", "choose_context"]

NEW_MODEL_CONTEXT = 512
"""Context of a model that is made from scratch."""
_UNSTATED = 2048
"""Context of a model whose configuration says nothing."""
_MEMORY_SHARE = 0.25
"""Share of the memory that keys and values may take: weights, gradients and a layer's results need the rest."""
_LEAST = 512
_STEP = 64


def choose_context(model: PreTrainedModel, wanted: int | None, conversations: int) -> int:
    """Return the number of tokens that a conversation may have.

    It depends on the whole memory and not on what is free of it, so that a machine always chooses the same.

    Args:
        model: the model, on its device.
        wanted: the user's choice, which the model's own limit bounds; ``None`` for none.
        conversations: number of conversations that are sampled at once.
    """
    config: Any = model.config.get_text_config()
    own: int | None = getattr(config, "max_position_embeddings", None)
    if wanted is not None:
        return min(wanted, own or wanted)
    affordable = cache_memory(model.device) // (bytes_per_token(model) * conversations)
    return min(own or _UNSTATED, max(_LEAST, affordable // _STEP * _STEP))


def cache_memory(device: torch.device) -> int:
    """Return the bytes that keys and values may take where nobody says otherwise."""
    return int(_memory(device) * _MEMORY_SHARE)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Return the size of one token's keys and values, over all layers."""
    config: Any = model.config.get_text_config()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * key_heads * size * model.dtype.itemsize)


def _memory(device: torch.device) -> int:
    """Return the size of the device's memory in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
