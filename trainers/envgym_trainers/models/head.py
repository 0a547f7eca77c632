"""The parts of a model that make its logits: backbone and head."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["backbone_and_head", "has_plain_head", "head_form", "know_head_form", "logits_head"]

_TOLERANCE = 1e-4
"""Relative norm; 16-bit weights get a wider tolerance for rounding."""

_exact: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
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


def logits_head(model: PreTrainedModel) -> nn.Module | None:
    """Return a module that makes the model's logits, [n, V], of its backbone's last hidden states, [n, H].

    It is the output embedding, or the model's own forward pass without its backbone where that does more (soft
    caps, scales). ``None`` if neither gives the model's logits, which is found out on two tokens, once per model.
    """
    if has_plain_head(model):
        return backbone_and_head(model)[1]
    head = _Headed.of(model)
    known = _exact.get(model)
    if known is None:
        known = _exact[model] = head is not None and _makes_logits(model, head)
        if not known:
            warnings.warn(
                f"the logits of a {type(model).__name__} cannot be made in parts; a whole micro-batch's are "
                "kept for the backward pass; lower optimizer.micro_batch_tokens if memory runs out",
                stacklevel=2,
            )
    return head if known else None


def head_form(model: PreTrainedModel) -> tuple[bool, bool]:
    """Return whether the model has a plain head, and whether it has a ``logits_head`` at all."""
    return has_plain_head(model), logits_head(model) is not None


def know_head_form(model: PreTrainedModel, form: Sequence[bool]) -> None:
    """Take ``head_form`` from another model of this architecture, as one without weights cannot be asked."""
    _plain[model], _exact[model] = form


class _Headed(nn.Module):
    """A model's forward pass without its backbone; it shares the parameters and leaves the model unchanged."""

    def __init__(self, shell: nn.Module) -> None:
        super().__init__()
        self.shell = shell

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Headed | None:
        """Return the head of ``model``, or ``None`` if its backbone is not a direct part of it."""
        untyped: Any = model
        whole = untyped.get_base_model() if hasattr(model, "get_base_model") else untyped
        backbone, _ = backbone_and_head(whole)
        shell = copy.copy(whole)
        parts = {name: _Skipped() if part is backbone else part for name, part in whole._modules.items()}
        shell.__dict__["_modules"] = parts
        return cls(shell) if any(isinstance(part, _Skipped) for part in parts.values()) else None

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.shell(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return logits


class _Skipped(nn.Module):
    """Stands for a backbone that has run already: its embeddings are its last hidden states."""

    def forward(self, inputs_embeds: Tensor, **_: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


@torch.no_grad()
def _makes_logits(model: PreTrainedModel, head: nn.Module) -> bool:
    try:
        whole, parts = _both(model, head)
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError):
        return False
    gap = torch.linalg.vector_norm(parts.float() - whole.float()) / torch.linalg.vector_norm(whole.float())
    return bool(gap < max(_TOLERANCE, 8 * torch.finfo(model.dtype).eps))


@torch.no_grad()
def _compare(model: PreTrainedModel) -> bool:
    whole, parts = _both(model, backbone_and_head(model)[1])
    return torch.allclose(whole, parts, rtol=0, atol=0, equal_nan=True)  # broken weights are not the head's doing


def _both(model: PreTrainedModel, head: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the logits of two tokens by the whole model and by its backbone and ``head``, [2, V] each."""
    backbone, _ = backbone_and_head(model)
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        ids = torch.tensor([[0, 1]], device=model.device)
        whole = model(input_ids=ids, use_cache=False).logits[0]
        return whole, head(backbone(input_ids=ids, use_cache=False)[0][0])
    finally:
        for module, training in modes:
            module.training = training
