"""The contract of objectives, as tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from envgym_trainers.batch import Batch, Sample, collate
from envgym_trainers.objectives.base import Metrics, Objective, merge_metrics, objectives
from envgym_trainers.objectives.ops.reduction import Totals

__all__ = ["ObjectiveContract"]

_LENGTHS = (7, 4, 9, 5)
_SCORES = (0.0, 1.0, 0.5, 0.25)
_TOLERANCE = 1e-5


class ObjectiveContract:
    """Test that advantages leave missing members out, and that the loss is pure, masked and additive.

    What a subclass sets:
        objective: name of the objective, or ``"package.module:Class"``.
        settings: fields of its ``Config``.
    """

    objective: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def made(self) -> Objective:
        """Make the objective from its settings."""
        return objectives.make(self.objective, self.settings)

    def test_a_missing_member_has_no_advantage_and_no_influence(self, made: Objective) -> None:
        """Compare a group with the same group and a failed member."""
        scores = torch.tensor(_SCORES, dtype=torch.float64)
        lengths = torch.tensor(_LENGTHS)
        whole = made.advantages(made.shape(scores, lengths))
        missing = made.shape(torch.cat([scores, scores.new_tensor([math.nan])]), torch.cat([lengths, lengths[:1]]))
        assert missing[-1].isnan()
        found = made.advantages(missing)
        assert whole.shape == scores.shape
        assert whole.isfinite().all()
        assert torch.equal(found[:-1], whole)
        assert found[-1] == 0

    @pytest.mark.parametrize("scores", [(1.0, 1.0, 1.0), (0.0, 0.0), (math.nan, math.nan), (0.5, math.nan)])
    def test_a_group_without_a_signal_is_not_learnt_from(self, made: Objective, scores: Sequence[float]) -> None:
        """Give an advantage of 0 where no member differs from another."""
        values = made.shape(torch.tensor(scores, dtype=torch.float64), torch.full((len(scores),), 3))
        assert made.advantages(values).tolist() == [0.0] * len(scores)

    def test_the_loss_is_a_finite_scalar_and_pure(self, made: Objective) -> None:
        """Compute it twice from one batch, which stays as it is; metrics are detached scalars."""
        batch, logprobs = _batch(_samples())
        kept = logprobs.detach().clone(), batch.advantages.clone()
        (first, metrics), (again, _) = (_loss(made, batch, logprobs) for _ in range(2))
        assert first.shape == ()
        assert first.isfinite()
        assert first.requires_grad
        assert torch.equal(first, again)
        assert torch.equal(logprobs, kept[0])
        assert torch.equal(batch.advantages, kept[1])
        assert all(value.numel() == 1 and not value.requires_grad for value in metrics.values())

    @pytest.mark.parametrize("outside", [-1.0, math.nan])
    def test_only_sampled_tokens_have_a_gradient(self, made: Objective, outside: float) -> None:
        """Leave prompts, tool output and padding alone, whatever the log-probs there are."""
        batch, logprobs = _batch(_samples())
        values = torch.where(batch.mask, logprobs.detach(), outside).requires_grad_()
        loss, _ = _loss(made, batch, values)
        loss.backward()
        assert values.grad is not None
        assert values.grad.isfinite().all()
        assert not values.grad[~batch.mask].any()
        assert values.grad[batch.mask].any()

    def test_micro_batches_add_up(self, made: Objective) -> None:
        """Cut the batch in two: values, gradients and metrics are those of the uncut batch."""
        samples = _samples()
        totals = Totals.of(samples)
        whole, whole_gradient, whole_metrics = _update(made, [samples], totals)
        parts, gradient, metrics = _update(made, [samples[:2], samples[2:]], totals)
        assert parts == pytest.approx(whole, abs=_TOLERANCE)
        assert gradient == pytest.approx(whole_gradient, abs=_TOLERANCE)
        assert metrics == pytest.approx(whole_metrics, abs=_TOLERANCE)


def _samples() -> list[Sample]:
    """Return four samples of one group, off-policy, with every optional log-prob."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for i, length in enumerate(_LENGTHS):
        mask = torch.rand(length, generator=generator) < 0.5
        mask[0], mask[1] = False, True
        engine = -torch.rand(length, generator=generator)
        samples.append(
            Sample(
                ids=torch.randint(0, 97, (length,), generator=generator),
                mask=mask,
                logprobs=engine,
                advantage=_SCORES[i] - 0.4,
                group="g",
                version=0,
                old_logprobs=engine + 0.01,
                reference_logprobs=engine - 0.05,
            )
        )
    return samples


def _batch(samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
    """Return the samples as one batch, and log-probs of the policy [B, T] with gradient."""
    batch = collate(samples, pad_id=0)
    old = batch.behaviour_logprobs.nan_to_num()
    return batch, (old + 0.02 * batch.ids.sin()).requires_grad_()


def _loss(
    objective: Objective, batch: Batch, logprobs: Tensor, totals: Totals | None = None
) -> tuple[Tensor, Metrics]:
    """Compute the loss; the one place that calls it."""
    totals = totals or Totals(tokens=int(batch.mask.sum()), sequences=len(batch.mask))
    return objective.loss(batch, logprobs, logprobs.detach().abs(), totals)


def _update(
    objective: Objective, parts: Sequence[Sequence[Sample]], totals: Totals
) -> tuple[float, list[float], dict[str, float]]:
    """Return the loss over all parts, its gradient at every sampled token in order, and the metrics."""
    value, gradient, metrics = 0.0, [], []
    for part in parts:
        batch, logprobs = _batch(part)
        loss, found = _loss(objective, batch, logprobs, totals)
        loss.backward()
        assert logprobs.grad is not None
        value += loss.item()
        gradient += logprobs.grad[batch.mask].tolist()
        metrics.append(found)
    return value, gradient, merge_metrics(metrics)
