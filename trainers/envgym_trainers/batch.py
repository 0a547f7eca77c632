"""Samples, and the padded batches that the loss is computed on.

Shapes: B sequences, T positions, right-padded. Every per-token tensor is aligned with ``ids``: entry ``[b,
t]`` belongs to the token ``ids[b, t]``, and a log-prob there is that of ``ids[b, t]`` given ``ids[b, :t]``.

Example: the prompt ``7 8``, two sampled tokens ``3 4``, a tool's answer ``9``, one sampled token ``5``::

    ids       7     8     3     4     9     5
    mask      0     0     1     1     0     1
    logprobs  nan   nan  -0.1  -2.3   nan  -0.7
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["Batch", "Sample", "collate", "micro_batches"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One token sequence to train on, as it was sampled.

    Raises:
        ValueError: lengths differ, a dtype is wrong, position 0 counts as sampled, no token was sampled, or
            the advantage is not finite.
    """

    ids: Tensor
    """[T] int64: prompt, sampled and environment tokens in the order in which the policy saw them."""
    mask: Tensor
    """[T] bool: True only where the policy sampled the token."""
    logprobs: Tensor
    """[T] float: log-prob that the engine reported (b); NaN where it reported none, ignored outside the
    mask."""
    advantage: float
    """Advantage of the whole sequence; 0 for a member of a group without signal."""
    group: str
    """Name of the group whose members share the baseline."""
    version: int
    """Version of the oldest policy that sampled one of the tokens."""
    old_logprobs: Tensor | None = None
    """[T] float: log-prob under the policy before this step's first update (o); None stands for the current
    one."""
    reference_logprobs: Tensor | None = None
    """[T] float: log-prob under the reference model (f)."""

    def __post_init__(self) -> None:
        if self.ids.dtype != torch.int64 or self.mask.dtype != torch.bool:
            raise ValueError(f"ids must be int64 and mask bool, got {self.ids.dtype} and {self.mask.dtype}")
        shape = self.ids.shape
        for name in ("ids", "mask", "logprobs", "old_logprobs", "reference_logprobs"):
            values = getattr(self, name)
            if values is not None and (values.ndim != 1 or values.shape != shape):
                raise ValueError(f"{name} must be 1-D of length {self.ids.numel()}, got {tuple(values.shape)}")
        if not bool(self.mask.any()):
            raise ValueError("a sample needs at least one sampled token")
        if bool(self.mask[0]):
            raise ValueError("position 0 has no context, so it cannot be a sampled token")
        if not torch.isfinite(torch.tensor(self.advantage)):
            raise ValueError(f"the advantage must be finite, got {self.advantage}")

    def __len__(self) -> int:
        """Number of tokens T."""
        return self.ids.numel()

    @property
    def model_tokens(self) -> int:
        """Number of tokens the policy sampled."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Samples padded on the right to one length."""

    ids: Tensor
    """[B, T] int64."""
    attention: Tensor
    """[B, T] bool: False on padding."""
    mask: Tensor
    """[B, T] bool: True where the policy sampled the token."""
    behaviour_logprobs: Tensor
    """[B, T] float32: b; NaN where the engine reported none and on padding."""
    advantages: Tensor
    """[B, T] float32: each sequence's advantage at every position."""
    old_logprobs: Tensor | None = None
    """[B, T] float32: o, or None for the current policy's own."""
    reference_logprobs: Tensor | None = None
    """[B, T] float32: f, or None when no reference model is used."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch with every tensor on ``device``."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: None if t is None else t.to(device) for name, t in tensors.items()}
        return Batch(**moved)


def collate(samples: Sequence[Sample], pad_id: int) -> Batch:
    """Pad ``samples`` on the right to the longest of them.

    Args:
        samples: at least one.
        pad_id: any id of the vocabulary; it is neither attended to nor trained on.

    Raises:
        ValueError: no samples, or an optional log-prob that only some samples carry.
    """
    if not samples:
        raise ValueError("cannot collate an empty batch")

    def pad(rows: list[Tensor], value: float) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value)

    ids = pad([s.ids for s in samples], pad_id)
    advantages = torch.tensor([s.advantage for s in samples], dtype=torch.float32)
    return Batch(
        ids=ids,
        attention=pad([torch.ones_like(s.mask) for s in samples], False),
        mask=pad([s.mask for s in samples], False),
        behaviour_logprobs=pad([s.logprobs.float() for s in samples], torch.nan),
        advantages=advantages[:, None].expand(ids.shape),
        old_logprobs=_pad_optional("old_logprobs", [s.old_logprobs for s in samples]),
        reference_logprobs=_pad_optional("reference_logprobs", [s.reference_logprobs for s in samples]),
    )


def _pad_optional(name: str, rows: Sequence[Tensor | None]) -> Tensor | None:
    present = [row.float() for row in rows if row is not None]
    if not present:
        return None
    if len(present) != len(rows):
        raise ValueError(f"{len(rows) - len(present)} of {len(rows)} samples carry no {name}; give all or none")
    return pad_sequence(present, batch_first=True, padding_value=torch.nan)


def micro_batches(samples: Sequence[Sample], max_tokens: int) -> list[list[Sample]]:
    """Pack the members of a group together, which share their prompt, and groups of like length.

    The longest come first: a batch that does not fit in memory fails at the start of the step.

    Args:
        samples: in any order.
        max_tokens: most positions of one micro-batch, padding included. A longer sample gets one of its own,
            because a sequence cannot be split.

    Raises:
        ValueError: ``max_tokens`` is not positive.
    """
    if max_tokens <= 0:
        raise ValueError(f"max_tokens must be positive, got {max_tokens}")
    longest: dict[str, int] = {}
    for sample in samples:
        longest[sample.group] = max(len(sample), longest.get(sample.group, 0))
    packs: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda s: (longest[s.group], s.group, len(s)), reverse=True):
        if packs and (len(packs[-1]) + 1) * len(packs[-1][0]) <= max_tokens:
            packs[-1].append(sample)
        else:
            packs.append([sample])
    return packs
