"""What an objective is: advantages and a loss, pure, in one file.

To add one, subclass ``Objective`` in a module of your own and name it in the entry-point group
``envgym.objectives``. Its fields are its settings: a recipe's ``[objective]`` table is validated against
them.

Notation in this package: ℓ log-prob under the policy being trained, o under the policy before the step, b as
the engine reported it, f under the reference model, A advantage, m mask, N tokens and B sequences of the
optimizer batch. Every loss is minimised.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import torch
from pydantic import model_validator
from torch import Tensor

from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym_trainers.batch import Batch
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling
from envgym_trainers.objectives.ops.reduction import Totals

__all__ = ["Metrics", "Needs", "Objective", "merge_metrics", "objectives"]

Metrics: TypeAlias = Mapping[str, Tensor]
"""Detached scalars by name. A name that ends in ``_max`` is a maximum; every other value is a share of the
optimizer batch's, so that the values of its micro-batches add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an objective asks of the training loop beyond groups and log-probs."""

    reference_model: bool = False
    """Fill ``Batch.reference_logprobs``."""
    dynamic_sampling: DynamicSampling | None = None
    """Fill the batch with groups that have a signal, under these settings."""
    filter_truncated: bool = False
    """Leave truncated members out of the batch; their rewards stay in the group's baseline."""


class Objective(Plugin, abc.ABC):
    """A training objective. Subclasses set ``advantages`` and ``loss``; the rest has a default."""

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
        """What the loop must provide; nothing by default."""
        return Needs()

    def shape(self, scores: Tensor, model_tokens: Tensor) -> Tensor:
        """Rewards of a group from its scores; the scores themselves by default.

        Args:
            scores: [G] float64 from the rubric, NaN where missing.
            model_tokens: [G] int64: tokens the policy sampled.

        Returns:
            [G] float64, NaN where missing.
        """
        del model_tokens
        return scores

    @abc.abstractmethod
    def advantages(self, rewards: Tensor) -> Tensor:
        """Advantage of each member of one group.

        Args:
            rewards: [G] float64 as ``shape`` returned them, NaN where missing.

        Returns:
            [G] float64; 0 for a missing member, which also stays out of everyone's baseline.
        """

    @abc.abstractmethod
    def loss(self, batch: Batch, logprobs: Tensor, entropy: Tensor, totals: Totals) -> tuple[Tensor, Metrics]:
        """This micro-batch's share of the loss; call ``backward`` on it as it is and step after the last one.

        Args:
            batch: on the log-probs' device.
            logprobs: [B, T] ℓ with gradient, as ``token_logprobs`` returns them.
            entropy: [B, T] in nats, detached.
            totals: of the whole optimizer batch, over all micro-batches and ranks.

        Returns:
            The scalar share, and metrics to merge with ``merge_metrics``.

        Raises:
            ValueError: the batch lacks something that ``needs`` declares.
        """


def merge_metrics(parts: Iterable[Metrics]) -> dict[str, float]:
    """Metrics of an optimizer batch from those of its micro-batches."""
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
