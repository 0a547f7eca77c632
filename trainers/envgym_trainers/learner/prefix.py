"""Run shared prefixes once, with the samples of a batch packed as trees of tokens.

The members of a group start with the same prompt, which is often most of their tokens. Each row of a packed batch
is a tree: a token's parent is the token before it, and it attends only to its ancestors and itself. So the hidden
states are those of separate rows, at a fraction of the work::

    7 8 3 4        ids        7 8 3 4 5 6
    7 8 5 6   →    positions  0 1 2 3 2 3
                   5 attends  7 8 5
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from envgym_trainers.batch import Batch
from envgym_trainers.models.attention import attention_mask, partial_attention

__all__ = ["Packed", "pack", "run_packed", "shares_prefixes"]

_ROW_WIDTHS = 2
"""Maximum length of a row, in multiples of the model's width, unless one sample is longer. Attention over a row
costs its length squared, and at six widths as much as the rest of the model."""
_WORTH = 0.8
"""Packing must leave at most this share of the positions, because trees lose the fast causal kernels."""
_TOLERANCE = 1e-3
"""Relative norm; 16-bit weights get a wider tolerance for rounding."""

_proved: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """R trees of at most L tokens, for a batch of B samples of at most T."""

    ids: Tensor
    """[R, L] int64; padded with the batch's own padding."""
    positions: Tensor
    """[R, L] int64: depth in the tree."""
    visible: Tensor
    """[R, 1, L, L] bool: query to key. Padding attends to itself, as a softmax over nothing is NaN."""
    where: Tensor
    """[B, T] int64: index among the R·L tokens of token t of sample b; 0 on padding."""


def pack(batch: Batch, width: int) -> Packed | None:
    """Lay the samples out as trees, or return ``None`` where it would save too little.

    Args:
        batch: right-padded.
        width: hidden size of the model.
    """
    ids, lengths = batch.ids.cpu().numpy(), batch.attention.sum(1).tolist()
    limit = max(_ROW_WIDTHS * width, ids.shape[1])
    order = sorted(range(len(ids)), key=lambda b: ids[b, : lengths[b]].tolist())
    rows: list[_Row] = []
    where = np.zeros(ids.shape, np.int64)
    owner = np.zeros(len(ids), np.int64)
    for b in order:
        sample = ids[b, : lengths[b]]
        if not rows or len(rows[-1].ids) + len(sample) - rows[-1].shared(sample) > limit:
            rows.append(_Row())
        owner[b] = len(rows) - 1
        where[b, : len(sample)] = rows[-1].add(sample)
    longest = max(len(row.ids) for row in rows)
    if len(rows) * longest > _WORTH * ids.size:
        return None
    valid = batch.attention.cpu().numpy()
    where = np.where(valid, where + owner[:, None] * longest, 0)
    packed_ids = np.full((len(rows), longest), int(ids[0, 0]), np.int64)
    positions = np.zeros((len(rows), longest), np.int64)
    visible = np.tile(np.eye(longest, dtype=bool), (len(rows), 1, 1))
    for r, row in enumerate(rows):
        packed_ids[r, : len(row.ids)] = row.ids
        positions[r, : len(row.ids)] = row.positions
        for path in row.paths:
            visible[r, path[:, None], path[None, :]] = np.tri(len(path), dtype=bool)
    arrays = (packed_ids, positions, visible[:, None], where)
    tensors = [torch.from_numpy(array).to(batch.ids.device) for array in arrays]
    return Packed(ids=tensors[0], positions=tensors[1], visible=tensors[2], where=tensors[3])


class _Row:
    """One tree, grown in lexicographic order, so that a sample's longest shared prefix is with the one before."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.paths: list[np.ndarray] = []
        self._last = np.empty(0, np.int64)

    def shared(self, sample: np.ndarray) -> int:
        """Return the number of tokens at the start of ``sample`` that the row has already."""
        length = min(len(sample), len(self._last))
        differs = np.flatnonzero(sample[:length] != self._last[:length])
        return int(differs[0]) if len(differs) else length

    def add(self, sample: np.ndarray) -> np.ndarray:
        """Add the sample and return the place of each of its tokens in the row."""
        shared = self.shared(sample)
        fresh = np.arange(len(self.ids), len(self.ids) + len(sample) - shared)
        path = np.concatenate([self.paths[-1][:shared], fresh]) if self.paths else fresh
        self.ids += sample[shared:].tolist()
        self.positions += range(shared, len(sample))
        self.paths.append(path)
        self._last = sample
        return path


def run_packed(model: PreTrainedModel, backbone: nn.Module, packed: Packed) -> Tensor:
    """Return the hidden states of every packed token, [R·L, H]."""
    mask = attention_mask(model, packed.visible)
    states = backbone(input_ids=packed.ids, attention_mask=mask, position_ids=packed.positions, use_cache=False)
    hidden: Tensor = states[0]
    return hidden.flatten(0, 1)


def shares_prefixes(model: PreTrainedModel, backbone: nn.Module) -> bool:
    """Return whether trees give the model's hidden states; asked of the model itself, once.

    Architectures differ in positions and masks, and layers that mix neighbouring tokens in other ways than by
    attention cannot run trees at all.
    """
    known = _proved.get(model)
    if known is None:
        # Every layer gets the same mask, so none may have a narrower attention window.
        known = _proved[model] = not partial_attention(model.config) and _compare(model, backbone)
    return known


@torch.no_grad()
def _compare(model: PreTrainedModel, backbone: nn.Module) -> bool:
    modes = [(module, module.training) for module in model.modules()]
    ids = torch.tensor([[0, 1, 2, 1, 2, 1], [0, 1, 2, 2, 1, 1]], device=model.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch(
        ids=ids, attention=mask, mask=mask, behaviour_logprobs=ids.float(), advantages=ids.float(), unit=ids[:, 0]
    )
    packed = pack(batch, model.config.get_text_config().hidden_size)
    if packed is None:
        return False
    try:
        for module, _ in modes:
            module.training = False
        expected = backbone(input_ids=ids, use_cache=False)[0].float()
        found = run_packed(model, backbone, packed)[packed.where].float()
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError):
        return False
    finally:
        for module, training in modes:
            module.training = training
    gap = torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)
    return bool(gap < max(_TOLERANCE, 8 * torch.finfo(model.dtype).eps))
