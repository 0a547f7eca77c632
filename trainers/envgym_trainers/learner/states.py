"""Hidden states of a batch, what its samples share being run once."""

from __future__ import annotations

import dataclasses
import weakref

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from envgym_trainers.batch import Batch
from envgym_trainers.learner.packing import pack
from envgym_trainers.learner.prefix import NO_PREFIX, Prefix, run_prefix
from envgym_trainers.models.attention import Rows, partial_attention, run_as_rows, understands_rows
from envgym_trainers.models.head import backbone_and_head, logits_head

__all__ = ["hidden_states", "know_sharing", "shares_prefixes"]

_TOLERANCE = 1e-3
"""Relative norm; 16-bit weights get a wider tolerance for rounding."""

_proved: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def hidden_states(backbone: nn.Module, batch: Batch, wanted: Tensor, prefix: Prefix = NO_PREFIX) -> Tensor:
    """Return the last hidden states at n positions, [n, H], in the order of the batch.

    Padding is on the right, where causal attention never looks.

    Args:
        backbone: of a model that shares prefixes.
        batch: B samples of at most T tokens, that start with those of ``prefix``.
        wanted: [B, T] bool, n of them True, and none in the prefix.
        prefix: what has run already.
    """
    start = prefix.length
    wanted = wanted[:, start:]
    packed = pack(batch, start)
    if packed is not None:
        rows = dataclasses.replace(packed.rows, before=prefix.layers)
        return run_as_rows(backbone, packed.ids, packed.positions, rows)[0][packed.where[wanted]]
    ids = batch.ids[:, start:]
    positions = torch.arange(start, batch.ids.shape[1], device=ids.device).expand_as(ids)
    return run_as_rows(backbone, ids, positions, Rows(before=prefix.layers))[wanted]


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Return whether the model's logits can be made of hidden states with shared prefixes.

    It is asked of the model itself, once: architectures differ in positions and masks, and layers that mix
    neighbouring tokens in other ways than by attention cannot run trees at all.
    """
    known = _proved.get(model)
    if known is None:
        # Every layer gets the same rows, so none may have a narrower attention window.
        possible = logits_head(model) is not None and not partial_attention(model.config)
        known = _proved[model] = possible and understands_rows(model) and _compare(model)
    return known


def know_sharing(model: PreTrainedModel, shares: bool) -> None:
    """Take ``shares_prefixes`` from another model of this architecture, as one without weights cannot be asked."""
    _proved[model] = shares and understands_rows(model)


@torch.no_grad()
def _compare(model: PreTrainedModel) -> bool:
    backbone, _ = backbone_and_head(model)
    modes = [(module, module.training) for module in model.modules()]
    ids = torch.tensor([[0, 1, 2, 1, 2, 1], [0, 1, 2, 2, 1, 1]], device=model.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch(
        ids=ids, attention=mask, mask=mask, behaviour_logprobs=ids.float(), advantages=ids.float(), unit=ids[:, 0]
    )
    wanted = mask.clone()
    wanted[:, :2] = False
    try:
        for module, _ in modes:
            module.training = False
        # In one precision of attention: what 16 bits round differently would hide what is wrong.
        expected = backbone(input_ids=ids, use_cache=False, rows=Rows(masked=True))[0][wanted]
        prefixes = (NO_PREFIX, run_prefix(backbone, ids[0, :2]))
        found = [hidden_states(backbone, batch, wanted, prefix) for prefix in prefixes]
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError):
        return False
    finally:
        for module, training in modes:
            module.training = training
    limit = max(_TOLERANCE, 8 * torch.finfo(model.dtype).eps) * torch.linalg.vector_norm(expected.float())
    return all(bool(torch.linalg.vector_norm((states - expected).float()) < limit) for states in found)
