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

from envgym_trainers.models.causal import OPERATOR

__all__ = ["Checkpointing", "checkpointed"]

Checkpointing = Literal["off", "selective", "full"]

_aten = torch.ops.aten
_COSTLY = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        OPERATOR,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)
"""Operations whose results ``selective`` keeps, but for a layer's last: nearly all of the arithmetic, a third of
the memory."""


@contextlib.contextmanager
def checkpointed(model: nn.Module, how: Checkpointing) -> Iterator[None]:
    """Run forward passes of ``model`` with gradient checkpointing inside the context.

    Each layer is wrapped here rather than by transformers' ``gradient_checkpointing_enable``, which does nothing
    unless the model is in training mode, where dropout would change its log-probs.

    Args:
        model: its layers are those that transformers can checkpoint.
        how: ``off`` keeps everything, ``selective`` the results of attention and of all matrix products but the
            last, which the layer's own backward pass does without, ``full`` only the inputs of the layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if how == "off" or not torch.is_grad_enabled():
        layers = []
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    own = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            if how == "selective":
                policy = functools.partial(_policy, _last_product(layer))
                options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, policy)
            layer.forward = functools.partial(checkpoint, layer.forward, **options)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _last_product(layer: nn.Module) -> nn.Linear | None:
    """Return the linear module that is registered last, as a rule the last product; ``None`` without one."""
    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def _policy(last: nn.Linear | None, context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operation not in _COSTLY or (last is not None and _has(args, last.weight)):
        return CheckpointPolicy.PREFER_RECOMPUTE
    return CheckpointPolicy.MUST_SAVE


def _has(args: tuple[Any, ...], weight: torch.Tensor) -> bool:
    # Asked anew each time: a sharded weight is gathered somewhere else for the backward pass.
    return any(isinstance(a, torch.Tensor) and a.data_ptr() == weight.data_ptr() for a in args)
