"""The samples of a micro-batch as one tree of tokens, without padding.

Every distinct prefix has one place, and the layers run once over the places. Attention alone sees rows again, as
plain causal attention needs no mask: what many samples start with is one row, and how each goes on is another,
whose front is only looked at. So the hidden states are those of separate rows, at a fraction of the work::

    7 8 3 4        ids        7 8 3 4 5 6      rows   0 1
    7 8 5 6   →    positions  0 1 2 3 2 3            (0 1) 2 3
                   where      0 1 2 3                (0 1) 4 5
                              0 1 4 5
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envgym_trainers.batch import Batch
from envgym_trainers.models.attention import Part, Rows

__all__ = ["Packed", "common_prefix", "pack"]

_WORTH = 0.9
"""Sharing must leave at most this share of the positions, as laying the samples out for attention costs time."""
_WORTH_A_ROW = 2**14
"""What a shared start must save (``_Run.saved``) to be a row of its own: more batches of rows are more calls."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """The N distinct prefixes of a batch of B samples of at most T tokens; each is the place of its last token."""

    ids: Tensor
    """[1, N] int64."""
    positions: Tensor
    """[1, N] int64: those in the samples."""
    where: Tensor
    """[B, T] int64: place of token t of sample b; 0 on padding."""
    rows: Rows
    """The places as attention sees them; every place has a query in exactly one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Neighbours in lexicographic order, from ``first`` to before ``stop``."""

    first: int
    stop: int
    shared: int = 0
    """Length of the start that attention works on once for all of them; 0 if there is none."""

    @property
    def saved(self) -> int:
        """Twice the pairs of tokens that attention is spared."""
        return (self.stop - self.first - 1) * self.shared**2


def pack(batch: Batch, start: int = 0) -> Packed | None:
    """Lay the samples out as a tree, or return ``None`` where it would save too little.

    Args:
        batch: right-padded.
        start: tokens at the front of every sample that are left out.
    """
    table, lengths = batch.ids[:, start:].cpu().numpy(), batch.attention[:, start:].sum(1).tolist()
    # In lexicographic order a sample's longest shared prefix is with the one before.
    order = sorted(range(len(table)), key=lambda b: table[b, : lengths[b]].tolist())
    samples = [table[b, : lengths[b]] for b in order]
    shared = [common_prefix(*pair) for pair in itertools.pairwise(samples)]
    count = sum(map(len, samples)) - sum(shared)
    if count > _WORTH * table.size:
        return None
    paths = _paths(samples, shared)
    ids, positions = np.empty((2, 1, count), np.int64)
    where = np.zeros(table.shape, np.int64)
    for b, sample, path in zip(order, samples, paths, strict=True):
        ids[0, path], positions[0, path] = sample, np.arange(start, start + len(path))
        where[b, : len(path)] = path
    device = batch.ids.device
    return Packed(
        ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(positions).to(device),
        where=torch.from_numpy(where).to(device),
        rows=_rows(paths, _runs(shared), count, device),
    )


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


def _paths(samples: Sequence[np.ndarray], shared: Sequence[int]) -> list[np.ndarray]:
    """Return the places of every sample's tokens, places being numbered as they come up."""
    paths: list[np.ndarray] = []
    path, count = np.empty(0, np.int64), 0
    for sample, length in zip(samples, [0, *shared], strict=True):
        fresh = len(sample) - length
        path = np.concatenate([path[:length], np.arange(count, count + fresh)])
        count += fresh
        paths.append(path)
    return paths


def _runs(shared: Sequence[int]) -> list[_Run]:
    """Divide samples into runs whose shared start is run apart, where that saves attention, or is 0.

    Neighbours that share most are joined first, so a run's shared start is what it shares at the border that joins
    it last.

    Args:
        shared: lengths of the prefixes that each sample shares with the next, in lexicographic order.
    """
    runs = [[_Run(first=i, stop=i + 1)] for i in range(len(shared) + 1)]
    starting = dict(enumerate(runs))
    ending = {i + 1: span for i, span in starting.items()}
    for border in sorted(range(len(shared)), key=shared.__getitem__, reverse=True):
        apart = ending.pop(border + 1) + starting.pop(border + 1)
        whole = _Run(first=apart[0].first, stop=apart[-1].stop, shared=shared[border])
        better = whole.saved >= _WORTH_A_ROW and whole.saved > sum(run.saved for run in apart)
        starting[whole.first] = ending[whole.stop] = [whole] if better else apart
    return starting[0]


def _rows(paths: Sequence[np.ndarray], runs: Sequence[_Run], count: int, device: torch.device) -> Rows:
    """Return the rows: whole samples and shared starts first, then how the samples of each run go on."""
    batches = [(0, [paths[run.first][: run.shared or None] for run in runs])]
    for run in runs:
        longer = [path for path in paths[run.first : run.stop] if len(path) > run.shared > 0]
        batches += [(run.shared, longer)] if longer else []
    parts, sources, offset = [], np.empty(count, np.int64), 0
    for ahead, rows in batches:
        where = np.zeros((len(rows), max(map(len, rows))), np.int64)
        queries = where.shape[1] - ahead
        for row, path in enumerate(rows):
            where[row, : len(path)] = path
            sources[path[ahead:]] = offset + row * queries + np.arange(len(path) - ahead)
        offset += len(rows) * queries
        parts.append(Part(where=torch.from_numpy(where).to(device), ahead=ahead))
    return Rows(parts=parts, sources=torch.from_numpy(sources).to(device))
