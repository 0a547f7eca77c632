"""The interface of an objective: advantages and a loss, free of side effects, in one file.

To add one, subclass ``Objective`` in a module of your own and name it in the entry-point group
``envgym.objectives``. A recipe's ``[objective]`` table is validated against its nested ``Config``.

Notation in this package: ℓ log-prob under the policy being trained, o under the policy before the step, b as
the engine reported it, f under the reference model, A advantage, m mask, N tokens, B sequences and U units of the
optimizer batch. Every loss is minimised.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from pydantic import model_validator
from torch import Tensor

from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.records import Trajectory
from envgym_trainers.batch import Batch, Outputs, Sample, Unit
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling
from envgym_trainers.objectives.ops.reduction import Totals

__all__ = ["AuxiliaryName", "Member", "Metrics", "Needs", "Objective", "merge_metrics", "objectives"]

Metrics: TypeAlias = Mapping[str, Tensor]
"""Detached scalars by name. A name that ends in ``_max`` is a maximum; every other value is a share of the
optimizer batch's, so that the values of its micro-batches add up."""

AuxiliaryName = Literal["reference", "critic", "reward"]
"""Models beside the policy: ``reference`` fills ``reference_logprobs``; ``critic`` fills ``values``, and is
trained through ``Outputs.values``; ``reward`` replaces the environment's score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Requirements of an objective on the training loop, beyond groups and log-probs."""

    auxiliary: frozenset[AuxiliaryName] = frozenset()
    """Models beside the policy that the loop must provide."""
    old_logprobs: bool = False
    """Fill ``old_logprobs`` even with one update a step, for which no forward pass is made otherwise: the old
    policy is the current one."""
    dynamic_sampling: DynamicSampling | None = None
    """Fill the batch with groups that have a signal, under these settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a group, before the batch is made."""

    trajectory: Trajectory
    reward: float
    """Reward as ``shape`` returned it; NaN if missing, or truncated and masked."""
    samples: tuple[Sample, ...]
    """Its token sequences in the order of the turns, with the columns of the auxiliary models filled. Empty if the
    member is not trained on: its reward is NaN, or it sampled no token."""


class Objective(Plugin, abc.ABC):
    """A training objective. Subclasses define ``loss``, and ``advantages`` or ``units``; the rest has defaults."""

    class Config(Plugin.Config):
        """Settings of the objective; a subclass that defines no ``Config`` has none."""

        @model_validator(mode="before")
        @classmethod
        def _false_is_none(cls, values: dict[str, Any]) -> dict[str, Any]:
            """Read ``false`` as ``None`` for optional settings, because TOML has no null."""
            optional = {n for n, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
            return {n: None if value is False and n in optional else value for n, value in values.items()}

    config: Config

    def needs(self) -> Needs:
        """Return the objective's requirements; none by default."""
        return Needs()

    def shape(self, scores: Tensor, model_tokens: Tensor) -> Tensor:
        """Return the rewards of a group from its scores; the scores themselves by default.

        Args:
            scores: [G] float64 from the rubric, NaN where missing.
            model_tokens: [G] int64, number of tokens that the policy sampled.

        Returns:
            [G] float64, NaN where missing.
        """
        del model_tokens
        return scores

    def advantages(self, rewards: Tensor) -> Tensor:
        """Return the advantage of each member of one group, the same for all of its tokens.

        Args:
            rewards: [G] float64 as ``shape`` returned them, NaN where missing.

        Returns:
            [G] float64; 0 for a missing member, which is also left out of the baseline.
        """
        raise NotImplementedError(f"{type(self).__name__} must define advantages(rewards) or units(members)")

    def units(self, members: Sequence[Member]) -> list[Unit]:
        """Return the training units of one group; override for pairs, or for credit by turn or token.

        By default every sample is a unit, with the advantage of its member at every sampled token.

        Args:
            members: the whole group, missing members included.
        """
        rewards = torch.tensor([member.reward for member in members], dtype=torch.float64)
        return [
            (dataclasses.replace(sample, advantages=sample.spread(advantage)),)
            for member, advantage in zip(members, self.advantages(rewards).tolist(), strict=True)
            for sample in member.samples
        ]

    def prepare(self, units: list[Unit]) -> list[Unit]:
        """Return the units of a step, transformed as a whole, e.g. whitened; unchanged by default."""
        return units

    @abc.abstractmethod
    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return this micro-batch's share of the loss; the caller runs ``backward`` on it without scaling.

        Args:
            batch: whole units, on the outputs' device.
            outputs: outputs of the policy and of the auxiliary models.
            totals: sizes of the whole optimizer batch, over all micro-batches and ranks.

        Returns:
            The scalar share, and metrics to merge with ``merge_metrics``.

        Raises:
            ValueError: the batch lacks something that ``needs`` declares.
        """


def merge_metrics(parts: Iterable[Metrics]) -> dict[str, float]:
    """Merge the metrics of an optimizer batch's micro-batches."""
    columns: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, value in part.items():
            columns.setdefault(name, []).append(value)
    merged = {}
    for name, values in columns.items():
        stacked = torch.stack(values)
        merged[name] = float(stacked.max() if name.endswith("_max") else stacked.sum())
    return merged


objectives: Registry[Objective] = Registry(
    "objective", "envgym.objectives", "envgym_trainers.objectives.base:Objective"
)
"""Every objective that is installed or registered."""
