"""The interface of an objective: advantages and a loss, pure, in one file.

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
    """Demands of an objective on the training loop, beyond groups and log-probs."""

    auxiliary: frozenset[AuxiliaryName] = frozenset()
    """Models beside the policy."""
    dynamic_sampling: DynamicSampling | None = None
    """Fill the batch with groups that have a signal, under these settings."""
    filter_truncated: bool = False
    """Leave truncated members out of the batch; their rewards stay in the group's baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a group, before the batch is made."""

    trajectory: Trajectory
    reward: float
    """As ``shape`` returned it; NaN where it is missing."""
    samples: tuple[Sample, ...]
    """Its token sequences in the order of the turns, with the columns of the auxiliary models filled. Empty where
    the member is not trained on: it is missing, sampled nothing, or was truncated and is filtered."""


class Objective(Plugin, abc.ABC):
    """A training objective. Subclasses set ``loss``, and ``advantages`` or ``units``; the rest has a default."""

    class Config(Plugin.Config):
        """No settings."""

        @model_validator(mode="before")
        @classmethod
        def _false_is_none(cls, values: dict[str, Any]) -> dict[str, Any]:
            """Turn an optional setting off by ``false``: a recipe is TOML, which has no null."""
            optional = {n for n, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
            return {n: None if value is False and n in optional else value for n, value in values.items()}

    config: Config

    def needs(self) -> Needs:
        """Return what the loop must provide; nothing by default."""
        return Needs()

    def shape(self, scores: Tensor, model_tokens: Tensor) -> Tensor:
        """Return the rewards of a group from its scores; the scores themselves by default.

        Args:
            scores: [G] float64 from the rubric, NaN where missing.
            model_tokens: [G] int64: tokens the policy sampled.

        Returns:
            [G] float64, NaN where missing.
        """
        del model_tokens
        return scores

    def advantages(self, rewards: Tensor) -> Tensor:
        """Return the advantage of each member of one group, for all of its tokens alike.

        Args:
            rewards: [G] float64 as ``shape`` returned them, NaN where missing.

        Returns:
            [G] float64; 0 for a missing member, which also stays out of everyone's baseline.
        """
        raise NotImplementedError(f"{type(self).__name__} must define advantages(rewards) or units(members)")

    def units(self, members: Sequence[Member]) -> list[Unit]:
        """Make the training units of one group: the place for pairs, and for credit by turn or by token.

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
        """Change all units of a step once more, e.g. to whiten advantages over them; as they are by default."""
        return units

    @abc.abstractmethod
    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return this micro-batch's share of the loss; ``backward`` is called on it as it is.

        Args:
            batch: on the outputs' device; no unit of it is cut.
            outputs: of the policy, and of the auxiliary models that give some.
            totals: of the whole optimizer batch, over all micro-batches and ranks.

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
