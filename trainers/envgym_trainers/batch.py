"""Samples, and the padded batches that the loss is computed on.

Shapes: B sequences, T positions, right-padded. Every per-token tensor is aligned with ``ids``: entry ``[b,
t]`` belongs to the token ``ids[b, t]``, and a log-prob there is that of ``ids[b, t]`` given ``ids[b, :t]``.

Example: the prompt ``7 8``, two sampled tokens ``3 4``, a tool's answer ``9``, one sampled token ``5``::

    ids       7     8     3     4     9     5
    mask      0     0     1     1     0     1
    logprobs  nan   nan  -0.1  -2.3   nan  -0.7

A *unit* is a tuple of samples that the loss needs side by side: a pair, a group, or mostly one sample. It is never
split, neither over micro-batches nor over the updates of a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["IDLE", "Batch", "Outputs", "Sample", "Unit", "as_units", "collate", "micro_batches"]

_OPTIONAL = ("returns", "values", "old_logprobs", "reference_logprobs")
"""Columns that a batch has only if every sample has them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One token sequence to train on, as it was sampled.

    Raises:
        ValueError: lengths differ, a dtype is wrong, position 0 counts as sampled, no token was sampled, or
            an advantage is not finite.
    """

    ids: Tensor
    """[T] int64: prompt, sampled and environment tokens in the order in which the policy saw them."""
    mask: Tensor
    """[T] bool: True only where the policy sampled the token."""
    logprobs: Tensor
    """[T] float: log-prob that the engine reported (b); NaN where it reported none, ignored outside the
    mask."""
    group: str
    """Name of the group whose members share the baseline."""
    version: int
    """Version of the oldest policy that sampled one of the tokens."""
    versions: Tensor | None = None
    """[T] int64: version of the policy that sampled each token, ignored outside the mask; None where all are of
    ``version``."""
    trajectory_tokens: int = 0
    """Sampled tokens of the whole trajectory, which has several samples where its history was rewritten; 0 stands
    for this sample's own."""
    turn_rewards: Tensor | None = None
    """[T] float: the environment's reward of a turn at the turn's last sampled token, 0 elsewhere."""
    advantages: Tensor | None = None
    """[T] float: set by the objective; None counts as 0."""
    returns: Tensor | None = None
    """[T] float: the critic's target at each sampled token; set by the objective."""
    values: Tensor | None = None
    """[T] float: the critic's prediction before this step's first update."""
    old_logprobs: Tensor | None = None
    """[T] float: log-prob under the policy before this step's first update (o); None stands for the current
    one."""
    reference_logprobs: Tensor | None = None
    """[T] float: log-prob under the reference model (f)."""

    def __post_init__(self) -> None:
        if self.ids.dtype != torch.int64 or self.mask.dtype != torch.bool:
            raise ValueError(f"ids must be int64 and mask bool, got {self.ids.dtype} and {self.mask.dtype}")
        shape = self.ids.shape
        for name in ("ids", "mask", "logprobs", "versions", "turn_rewards", "advantages", *_OPTIONAL):
            values = getattr(self, name)
            if values is not None and (values.ndim != 1 or values.shape != shape):
                raise ValueError(f"{name} must be 1-D of length {self.ids.numel()}, got {tuple(values.shape)}")
        if not bool(self.mask.any()):
            raise ValueError("a sample needs at least one sampled token")
        if bool(self.mask[0]):
            raise ValueError("position 0 has no context, so it cannot be a sampled token")
        if self.advantages is not None and not bool(self.advantages[self.mask].isfinite().all()):
            raise ValueError(f"advantages must be finite where the mask is set, got {self.advantages.tolist()}")

    def __len__(self) -> int:
        """Return the number of tokens T."""
        return self.ids.numel()

    @property
    def model_tokens(self) -> int:
        """Number of tokens that the policy sampled."""
        return int(self.mask.sum())

    @property
    def has_signal(self) -> bool:
        """True if there is something to learn: an advantage other than 0, or an objective that sets none."""
        return self.advantages is None or bool(self.advantages[self.mask].any())

    @property
    def share(self) -> float:
        """Part of its trajectory that this sample is, by sampled tokens; those of a trajectory add up to 1."""
        return self.model_tokens / (self.trajectory_tokens or self.model_tokens)

    @property
    def token_versions(self) -> Tensor:
        """Version of the policy that sampled each token, of no meaning outside the mask. [T] int64"""
        return torch.full_like(self.ids, self.version) if self.versions is None else self.versions

    def spread(self, value: float) -> Tensor:
        """Return ``value`` at every sampled token and 0 elsewhere. [T] float32"""
        return self.mask.float() * value


Unit = tuple[Sample, ...]
"""Samples that are never split. At least one."""


IDLE: Sequence[Unit] = [
    (
        Sample(
            ids=torch.zeros(2, dtype=torch.int64),
            mask=torch.tensor([False, True]),
            logprobs=torch.zeros(2),
            group="",
            version=0,
        ),
    )
]
"""What a process runs, and does not learn from, while others have a micro-batch more."""


def as_units(samples: Iterable[Sample]) -> list[Unit]:
    """Make a unit of each sample."""
    return [(sample,) for sample in samples]


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
    """[B, T] float32; 0 outside the mask."""
    unit: Tensor
    """[B] int64: index of the row's unit; the rows of a unit are adjacent, in its order."""
    lengths: Tensor | None = None
    """[B] int64: sampled tokens of the trajectory that the row belongs to, over all of its rows; None for each
    row's own."""
    versions: Tensor | None = None
    """[B, T] int64: version of the policy that sampled each token, of no meaning outside the mask; None for the
    current one."""
    returns: Tensor | None = None
    """[B, T] float32: targets of the critic, or None without a critic."""
    values: Tensor | None = None
    """[B, T] float32: the critic's predictions before the step, or None without a critic."""
    old_logprobs: Tensor | None = None
    """[B, T] float32: o, or None for the current policy's own."""
    reference_logprobs: Tensor | None = None
    """[B, T] float32: f, or None without a reference model."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch with every tensor on ``device``."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: None if t is None else t.to(device) for name, t in tensors.items()}
        return Batch(**moved)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """Outputs of the models on a micro-batch."""

    logprobs: Tensor
    """[B, T] ℓ with gradient, as ``token_logprobs`` returns them."""
    entropy: Tensor
    """[B, T] in nats, detached."""
    values: Tensor | None = None
    """[B, T] values of the critic, with gradient: ``[b, t]`` is that of the state in which token t was sampled."""


def collate(units: Sequence[Unit], pad_id: int) -> Batch:
    """Pad the samples of ``units`` on the right to the longest of them.

    Args:
        units: at least one.
        pad_id: any id of the vocabulary; padding is neither attended to nor trained on.

    Raises:
        ValueError: no samples, or an optional column that only some samples carry.
    """
    samples = [sample for unit in units for sample in unit]
    if not samples:
        raise ValueError("cannot collate an empty batch")

    def pad(rows: list[Tensor], value: float) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value)

    optional = {name: _pad_optional(name, [getattr(s, name) for s in samples]) for name in _OPTIONAL}
    return Batch(
        ids=pad([s.ids for s in samples], pad_id),
        attention=pad([torch.ones_like(s.mask) for s in samples], False),
        mask=pad([s.mask for s in samples], False),
        behaviour_logprobs=pad([s.logprobs.float() for s in samples], torch.nan),
        advantages=pad([s.spread(0.0) if s.advantages is None else s.advantages.float() for s in samples], 0.0),
        unit=torch.tensor([i for i, unit in enumerate(units) for _ in unit]),
        lengths=torch.tensor([s.trajectory_tokens or s.model_tokens for s in samples]),
        versions=pad([s.token_versions for s in samples], 0),
        **optional,
    )


def _pad_optional(name: str, rows: Sequence[Tensor | None]) -> Tensor | None:
    present = [row.float() for row in rows if row is not None]
    if not present:
        return None
    if len(present) != len(rows):
        raise ValueError(f"{len(rows) - len(present)} of {len(rows)} samples carry no {name}; give all or none")
    return pad_sequence(present, batch_first=True, padding_value=torch.nan)


def micro_batches(units: Sequence[Unit], max_tokens: int) -> list[list[Unit]]:
    """Pack units into micro-batches: those of a group together, as they share a prompt, and groups of like length.

    The longest come first, so that a batch that does not fit in memory fails at the start of the step.

    Args:
        units: in any order.
        max_tokens: maximum number of positions of one micro-batch, padding included. A larger unit gets a
            micro-batch of its own, because a unit cannot be split.

    Raises:
        ValueError: ``max_tokens`` is not positive.
    """
    if max_tokens <= 0:
        raise ValueError(f"max_tokens must be positive, got {max_tokens}")
    longest: dict[str, int] = {}
    for unit in units:
        longest[unit[0].group] = max(_width(unit), longest.get(unit[0].group, 0))
    packs: list[list[Unit]] = []
    rows = width = 0
    for unit in sorted(units, key=lambda u: (longest[u[0].group], u[0].group, _width(u)), reverse=True):
        grown = max(width, _width(unit))
        if packs and (rows + len(unit)) * grown <= max_tokens:
            packs[-1].append(unit)
            rows, width = rows + len(unit), grown
        else:
            packs.append([unit])
            rows, width = len(unit), _width(unit)
    return packs


def _width(unit: Unit) -> int:
    return max(map(len, unit))
