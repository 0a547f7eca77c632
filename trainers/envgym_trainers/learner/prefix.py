"""Run once what the micro-batches of a group share.

The members of a group start with the same prompt, which is often most of their tokens. Where a group fills several
micro-batches, the prompt runs before them: they see its keys and values, leave their gradients there, and when the
last has done so, the sum goes back through the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor, nn

from envgym_trainers.batch import Sample, Unit
from envgym_trainers.learner.packing import common_prefix
from envgym_trainers.models.attention import KeysValues, Rows, run_as_rows

__all__ = ["NO_PREFIX", "Prefix", "by_group", "run_prefix", "shared_ids"]

_WORTH = 0.05
"""Share of the positions that a prefix must save to be run by itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """Tokens that all samples of some micro-batches start with, and that have run already."""

    length: int = 0
    """P."""
    layers: Mapping[int, KeysValues] = field(default_factory=dict)
    """By layer, what the micro-batches see of it and leave their gradients at."""
    made: Mapping[int, KeysValues] = field(default_factory=dict)
    """The same values, as the model made them."""

    def backward(self) -> None:
        """Send what gradient there is back through the tokens, once."""
        pairs = [
            (tensor, leaf.grad)
            for layer, leaves in self.layers.items()
            for tensor, leaf in zip(self.made[layer], leaves, strict=True)
            if leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])


NO_PREFIX = Prefix()


def by_group(packs: Sequence[Sequence[Unit]]) -> list[list[Sequence[Unit]]]:
    """Return the micro-batches in runs: neighbours with samples of one group alone, every other by itself."""

    def group(pack: Sequence[Unit]) -> object:
        groups = {sample.group for unit in pack for sample in unit}
        return groups.pop() if len(groups) == 1 else object()  # equal to no other

    return [list(run) for _, run in groupby(packs, group)]


def shared_ids(packs: Sequence[Sequence[Unit]]) -> Tensor:
    """Return the tokens that may run before the micro-batches, [P] int64; none where it would save too little.

    The token before the first sampled one stays with its sample, as that one's log-prob comes of its state.
    """
    samples = [sample for pack in packs for unit in pack for sample in unit]
    first = samples[0].ids
    if len(packs) == 1:
        return first[:0]
    length = min(_shared(sample, first) for sample in samples)
    saved, tokens = length * (len(packs) - 1), sum(map(len, samples))
    return first[: length if saved >= _WORTH * tokens else 0]


def _shared(sample: Sample, ids: Tensor) -> int:
    before_sampled = int(sample.mask.int().argmax()) - 1
    return min(before_sampled, common_prefix(sample.ids.numpy(), ids.numpy()))


def run_prefix(backbone: nn.Module, ids: Tensor) -> Prefix:
    """Run shared tokens.

    Args:
        backbone: of a model that shares prefixes.
        ids: [P] int64, on its device; if there are none, the prefix is empty.
    """
    if not len(ids):
        return NO_PREFIX
    seen: dict[int, KeysValues] = {}
    run_as_rows(backbone, ids[None], torch.arange(len(ids), device=ids.device)[None], Rows(seen=seen))
    made = dict(seen)  # a layer that is computed again for the backward pass leaves other tensors in seen
    layers = {layer: (_leaf(key), _leaf(value)) for layer, (key, value) in made.items()}
    return Prefix(length=len(ids), layers=layers, made=made)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)
