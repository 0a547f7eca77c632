"""Run shared prefixes once, with the samples of a batch packed as one tree of tokens, without padding.

The members of a group start with the same prompt, which is often most of their tokens. In a packed batch every
distinct prefix has one place: the layers run once over the places, and attention alone sees the samples side by
side again, where plain causal attention needs no mask. So the hidden states are those of separate rows, at a
fraction of the work::

    7 8 3 4        ids        7 8 3 4 5 6
    7 8 5 6   →    positions  0 1 2 3 2 3
                   where      0 1 2 3
                              0 1 4 5
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from envgym_trainers.batch import Batch
from envgym_trainers.models.attention import partial_attention, run_as_rows, understands_rows

__all__ = ["Packed", "pack", "run_packed", "shares_prefixes"]

_WORTH = 0.9
"""Packing must leave at most this share of the positions, as laying the samples out for attention costs time."""
_TOLERANCE = 1e-3
"""Relative norm; 16-bit weights get a wider tolerance for rounding."""

_proved: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """The N distinct prefixes of a batch of B samples of at most T tokens; each is the place of its last token."""

    ids: Tensor
    """[1, N] int64."""
    positions: Tensor
    """[1, N] int64: depth in the tree."""
    where: Tensor
    """[B, T] int64: place of token t of sample b; 0 on padding."""
    sources: Tensor
    """[N] int64: index among the B·T tokens of one that has this place."""


def pack(batch: Batch) -> Packed | None:
    """Lay the samples out as a tree, or return ``None`` where it would save too little.

    Args:
        batch: right-padded.
    """
    ids, lengths = batch.ids.cpu().numpy(), batch.attention.sum(1).tolist()
    where = np.zeros(ids.shape, np.int64)
    sources: list[np.ndarray] = []
    count = 0
    last = path = np.empty(0, np.int64)
    # In lexicographic order a sample's longest shared prefix is with the one before.
    for b in sorted(range(len(ids)), key=lambda b: ids[b, : lengths[b]].tolist()):
        sample = ids[b, : lengths[b]]
        shared = _common(sample, last)
        fresh = np.arange(shared, len(sample))
        path = np.concatenate([path[:shared], count + fresh - shared])
        where[b, : len(sample)] = path
        sources.append(b * ids.shape[1] + fresh)
        count += len(fresh)
        last = sample
    if count > _WORTH * ids.size:
        return None
    source = np.concatenate(sources)
    arrays = (ids.reshape(-1)[source][None], source[None] % ids.shape[1], where, source)
    tensors = [torch.from_numpy(array).to(batch.ids.device) for array in arrays]
    return Packed(ids=tensors[0], positions=tensors[1], where=tensors[2], sources=tensors[3])


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


def run_packed(backbone: nn.Module, packed: Packed) -> Tensor:
    """Return the hidden states of every place, [N, H]."""
    states = run_as_rows(backbone, packed.ids, packed.positions, packed.where, packed.sources)
    return states.flatten(0, 1)


def shares_prefixes(model: PreTrainedModel, backbone: nn.Module) -> bool:
    """Return whether trees give the model's hidden states; asked of the model itself, once.

    Architectures differ in positions and masks, and layers that mix neighbouring tokens in other ways than by
    attention cannot run trees at all.
    """
    known = _proved.get(model)
    if known is None:
        # Every layer gets the same rows, so none may have a narrower attention window.
        possible = not partial_attention(model.config) and understands_rows(model)
        known = _proved[model] = possible and _compare(model, backbone)
    return known


@torch.no_grad()
def _compare(model: PreTrainedModel, backbone: nn.Module) -> bool:
    modes = [(module, module.training) for module in model.modules()]
    ids = torch.tensor([[0, 1, 2, 1, 2, 1], [0, 1, 2, 2, 1, 1]], device=model.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch(
        ids=ids, attention=mask, mask=mask, behaviour_logprobs=ids.float(), advantages=ids.float(), unit=ids[:, 0]
    )
    packed = pack(batch)
    if packed is None:
        return False
    try:
        for module, _ in modes:
            module.training = False
        expected = backbone(input_ids=ids, use_cache=False)[0].float()
        found = run_packed(backbone, packed)[packed.where].float()
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError):
        return False
    finally:
        for module, training in modes:
            module.training = training
    gap = torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)
    return bool(gap < max(_TOLERANCE, 8 * torch.finfo(model.dtype).eps))
