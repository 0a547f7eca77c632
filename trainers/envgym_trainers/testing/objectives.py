"""The contract of objectives, as tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from envgym.records import Task, Trajectory
from envgym_trainers.batch import Batch, Outputs, Sample, Unit, collate
from envgym_trainers.objectives.base import Member, Metrics, Objective, merge_metrics, objectives
from envgym_trainers.objectives.ops.reduction import Totals

__all__ = ["ObjectiveContract"]

_LENGTHS = (7, 4, 9, 5)
_SCORES = (0.0, 1.0, 0.5, 0.25)
_TOLERANCE = 1e-5
_TRAJECTORY = Trajectory(env="contract", task=Task(id="t", split="train", messages=()))


class ObjectiveContract:
    """Test that units leave missing members out, and that the loss is pure, masked and additive.

    A subclass sets:
        objective: name of the objective, or ``"package.module:Class"``.
        settings: fields of its ``Config``.
        needs_a_difference: true if a group of equal rewards gives no gradient; false if the baseline is not the
            group's, as with a critic.
    """

    objective: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    needs_a_difference: ClassVar[bool] = True

    @pytest.fixture
    def made(self) -> Objective:
        """Make the objective from its settings."""
        return objectives.make(self.objective, self.settings)

    def test_a_missing_member_has_no_unit_and_no_influence(self, made: Objective) -> None:
        """Compare the units of a group with those of the same group and a failed member."""
        whole, with_missing = (_units(made, scores) for scores in (_SCORES, (*_SCORES, math.nan)))
        assert _advantages(whole) == _advantages(with_missing)
        assert all(math.isfinite(value) for row in _advantages(whole) for value in row)
        assert _units(made, (math.nan, math.nan)) == []

    @pytest.mark.parametrize("scores", [(1.0, 1.0, 1.0), (0.0, 0.0), (0.5, math.nan)])
    def test_a_group_without_a_signal_is_not_learnt_from(self, made: Objective, scores: Sequence[float]) -> None:
        """Make no unit, or units with advantage 0, if all members are equal."""
        if self.needs_a_difference:
            assert not any(value for row in _advantages(_units(made, scores)) for value in row)

    def test_the_loss_is_a_finite_scalar_and_pure(self, made: Objective) -> None:
        """Compute the loss twice from one batch, which stays unchanged; metrics are detached scalars."""
        units = _units(made, _SCORES)
        batch, outputs = _batch(units)
        kept = outputs.logprobs.detach().clone(), batch.advantages.clone()
        (first, metrics), (again, _) = (made.loss(batch, outputs, Totals.of(units)) for _ in range(2))
        assert first.shape == ()
        assert first.isfinite()
        assert first.requires_grad
        assert torch.equal(first, again)
        assert torch.equal(outputs.logprobs, kept[0])
        assert torch.equal(batch.advantages, kept[1])
        assert all(value.numel() == 1 and not value.requires_grad for value in metrics.values())

    @pytest.mark.parametrize("outside", [-1.0, math.nan])
    def test_only_sampled_tokens_have_a_gradient(self, made: Objective, outside: float) -> None:
        """Give no gradient to prompts, tool output and padding, whatever their log-probs."""
        units = _units(made, _SCORES)
        batch, outputs = _batch(units, outside)
        made.loss(batch, outputs, Totals.of(units))[0].backward()
        gradient = outputs.logprobs.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert not gradient[~batch.mask].any()
        assert gradient[batch.mask].any()

    def test_micro_batches_add_up(self, made: Objective) -> None:
        """Split the batch between units, and find the values, gradients and metrics of the whole batch."""
        units = made.prepare([*_units(made, _SCORES), *_units(made, (1.0, 0.0, 0.75), seed=1)])
        totals = Totals.of(units)
        whole, whole_gradient, whole_metrics = _update(made, [units], totals)
        parts, gradient, metrics = _update(made, [units[:1], units[1:]], totals)
        assert parts == pytest.approx(whole, abs=_TOLERANCE)
        assert gradient == pytest.approx(whole_gradient, abs=_TOLERANCE)
        assert metrics == pytest.approx(whole_metrics, abs=_TOLERANCE)


def _units(objective: Objective, scores: Sequence[float], seed: int = 0) -> list[Unit]:
    """Make the units of one group; its members have ragged lengths and every column that a loop can fill."""
    generator = torch.Generator().manual_seed(seed)
    samples = [_sample(_LENGTHS[i % len(_LENGTHS)], f"g{seed}", generator) for i in range(len(scores))]
    lengths = torch.tensor([sample.model_tokens for sample in samples])
    rewards = objective.shape(torch.tensor(scores, dtype=torch.float64), lengths).tolist()
    members = [
        Member(trajectory=_TRAJECTORY, reward=reward, samples=() if math.isnan(reward) else (sample,))
        for reward, sample in zip(rewards, samples, strict=True)
    ]
    return objective.units(members)


def _sample(length: int, group: str, generator: torch.Generator) -> Sample:
    """Return an off-policy sample."""
    mask = torch.rand(length, generator=generator) < 0.5
    mask[0], mask[1] = False, True
    engine = -torch.rand(length, generator=generator)
    return Sample(
        ids=torch.randint(0, 97, (length,), generator=generator),
        mask=mask,
        logprobs=engine,
        group=group,
        version=0,
        values=torch.rand(length, generator=generator),
        old_logprobs=engine + 0.01,
        reference_logprobs=engine - 0.05,
    )


def _advantages(units: Sequence[Unit]) -> list[list[float]]:
    """Return the advantages of each sample; an empty row where the objective set none."""
    return [[] if s.advantages is None else s.advantages.tolist() for unit in units for s in unit]


def _batch(units: Sequence[Unit], outside: float = 0.0) -> tuple[Batch, Outputs]:
    """Return the units as one batch, and outputs of the models with gradient; log-probs ``outside`` the mask."""
    batch = collate(units, pad_id=0)
    near = batch.behaviour_logprobs.nan_to_num() + 0.02 * batch.ids.sin()
    logprobs = torch.where(batch.mask, near, outside).requires_grad_()
    values = torch.where(batch.mask, 0.1 * batch.ids.cos(), 0.0).requires_grad_()
    return batch, Outputs(logprobs=logprobs, entropy=near.abs(), values=values)


def _update(
    objective: Objective, parts: Sequence[Sequence[Unit]], totals: Totals
) -> tuple[float, list[float], dict[str, float]]:
    """Return the loss over all parts, its gradient at every sampled token in order, and the metrics."""
    value = 0.0
    gradient: list[float] = []
    metrics: list[Metrics] = []
    for part in parts:
        batch, outputs = _batch(part)
        loss, found = objective.loss(batch, outputs, totals)
        loss.backward()
        grad: Tensor | None = outputs.logprobs.grad
        assert grad is not None
        value += loss.item()
        gradient += grad[batch.mask].tolist()
        metrics.append(found)
    return value, gradient, merge_metrics(metrics)
