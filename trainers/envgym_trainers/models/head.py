"""The parts of a model that make its logits: backbone and head."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["backbone_and_head", "has_plain_head"]

_plain: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def has_plain_head(model: PreTrainedModel) -> bool:
    """Return true if the model's logits are its output embedding applied to its backbone's last hidden state.

    Compared on two tokens, once per model, because each family names the settings that change its logits
    differently (``final_logit_softcapping``, ``logit_scale``, ``logits_scaling``, ``lm_head_multiplier``, …).
    Training modes are restored.
    """
    known = _plain.get(model)
    if known is None:
        known = _plain[model] = _compare(model)
    return known


def backbone_and_head(model: PreTrainedModel) -> tuple[nn.Module, nn.Module]:
    """Return the backbone and the output embedding, or identity if the model has none."""
    # transformers leaves both accessors untyped.
    untyped: Any = model
    head = untyped.get_output_embeddings()
    return untyped.get_decoder(), nn.Identity() if head is None else head


@torch.no_grad()
def _compare(model: PreTrainedModel) -> bool:
    backbone, head = backbone_and_head(model)
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        ids = torch.tensor([[0, 1]], device=model.device)
        whole = model(input_ids=ids, use_cache=False).logits
        parts = head(backbone(input_ids=ids, use_cache=False)[0])
    finally:
        for module, training in modes:
            module.training = training
    return torch.equal(whole, parts)
