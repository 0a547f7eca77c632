"""The samples of a micro-batch as one tree of tokens, without padding.

Every distinct prefix has one place: the layers run once over the places, and attention alone sees the samples side
by side again, where plain causal attention needs no mask. So the hidden states are those of separate rows, at a
fraction of the work::

    7 8 3 4        ids        7 8 3 4 5 6
    7 8 5 6   →    positions  0 1 2 3 2 3
                   where      0 1 2 3
                              0 1 4 5
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envgym_trainers.batch import Batch

__all__ = ["Packed", "common_prefix", "pack"]

_WORTH = 0.9
"""Sharing must leave at most this share of the positions, as laying the samples out for attention costs time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """The N distinct prefixes of a batch of B samples of at most T tokens; each is the place of its last token."""

    ids: Tensor
    """[1, N] int64."""
    positions: Tensor
    """[1, N] int64: those in the samples."""
    where: Tensor
    """[B, T] int64: place of token t of sample b; 0 on padding."""
    sources: Tensor
    """[N] int64: index among the B·T tokens of one that has this place."""


def pack(batch: Batch, start: int = 0) -> Packed | None:
    """Lay the samples out as a tree, or return ``None`` where it would save too little.

    Args:
        batch: right-padded.
        start: tokens at the front of every sample that are left out.
    """
    ids, lengths = batch.ids[:, start:].cpu().numpy(), batch.attention[:, start:].sum(1).tolist()
    where = np.zeros(ids.shape, np.int64)
    sources: list[np.ndarray] = []
    count = 0
    last = path = np.empty(0, np.int64)
    # In lexicographic order a sample's longest shared prefix is with the one before.
    for b in sorted(range(len(ids)), key=lambda b: ids[b, : lengths[b]].tolist()):
        sample = ids[b, : lengths[b]]
        shared = common_prefix(sample, last)
        fresh = np.arange(shared, len(sample))
        path = np.concatenate([path[:shared], count + fresh - shared])
        where[b, : len(sample)] = path
        sources.append(b * ids.shape[1] + fresh)
        count += len(fresh)
        last = sample
    if count > _WORTH * ids.size:
        return None
    source = np.concatenate(sources)
    arrays = (ids.reshape(-1)[source][None], start + source[None] % ids.shape[1], where, source)
    tensors = [torch.from_numpy(array).to(batch.ids.device) for array in arrays]
    return Packed(ids=tensors[0], positions=tensors[1], where=tensors[2], sources=tensors[3])


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length
