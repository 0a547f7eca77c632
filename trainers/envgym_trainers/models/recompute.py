"""Gradient checkpointing: layers keep less for the backward pass, and compute it again there."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["Checkpointing", "checkpointed"]

Checkpointing = Literal["off", "selective", "full"]

_aten = torch.ops.aten
_COSTLY = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)
"""Operations whose results ``selective`` keeps: nearly all of a layer's arithmetic, half of its memory."""


@contextlib.contextmanager
def checkpointed(model: nn.Module, how: Checkpointing) -> Iterator[None]:
    """Run forward passes of ``model`` with gradient checkpointing inside the context.

    Each layer is wrapped here rather than by transformers' ``gradient_checkpointing_enable``, which does nothing
    unless the model is in training mode, where dropout would change its log-probs.

    Args:
        model: its layers are those that transformers can checkpoint.
        how: ``off`` keeps everything, ``selective`` the results of matrix products and of attention, ``full`` only
            the inputs of the layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if how == "off" or not torch.is_grad_enabled():
        layers = []
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if how == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    own = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = functools.partial(checkpoint, layer.forward, **options)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _COSTLY else CheckpointPolicy.PREFER_RECOMPUTE
