"""DPO: how pairs are made, the loss against its formula, and that a pair is never cut."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from envgym.records import Task, Trajectory
from envgym_trainers.batch import Batch, Outputs, Sample, Unit, collate, micro_batches
from envgym_trainers.objectives.base import Member
from envgym_trainers.objectives.dpo import DPO
from envgym_trainers.objectives.ops.reduction import Totals

MakeSample = Callable[..., Sample]
_TRAJECTORY = Trajectory(env="e", task=Task(id="t", split="train", messages=()))


def _member(reward: float, *samples: Sample) -> Member:
    return Member(trajectory=_TRAJECTORY, reward=reward, samples=samples)


def _signs(unit: Unit) -> list[float]:
    signs = []
    for sample in unit:
        assert sample.advantages is not None
        (sign,) = set(sample.advantages[sample.mask].tolist())
        signs.append(sign)
    return signs


def test_the_best_is_paired_with_the_worst(make_sample: MakeSample) -> None:
    """A missing member and one in the middle are in no pair; all rows of a rewritten history are."""
    best, best_too, middle, worst = (make_sample([0, 1], seed=i) for i in range(4))
    members = [_member(0.5, middle), _member(math.nan), _member(0.0, worst), _member(1.0, best, best_too)]
    (unit,) = DPO().units(members)
    assert [s.ids.tolist() for s in unit] == [s.ids.tolist() for s in (best, best_too, worst)]
    assert _signs(unit) == [1.0, 1.0, -1.0]


@pytest.mark.parametrize(("gap", "pairs"), [(0.4, 1), (0.5, 1), (0.6, 0)])
def test_a_group_without_a_gap_makes_no_pair(make_sample: MakeSample, gap: float, pairs: int) -> None:
    members = [_member(0.5, make_sample([0, 1])), _member(1.0, make_sample([0, 1]))]
    assert len(DPO(gap=gap).units(members)) == pairs
    assert DPO(gap=gap).units([_member(math.nan), _member(1.0)]) == []


def _pairs(make_sample: MakeSample, seed: int, count: int = 4) -> list[Unit]:
    """Pairs with one to three rows a side, of ragged lengths with gaps, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def rows(sign: float) -> list[Sample]:
        made = []
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            length = int(torch.randint(2, 9, (), generator=generator))
            mask = [0, 1, *torch.randint(0, 2, (length,), generator=generator).tolist()]
            sample = make_sample(mask, seed=int(torch.randint(0, 10**6, (), generator=generator)))
            reference = -torch.rand(len(mask), generator=generator)
            made.append(dataclasses.replace(sample, advantages=sample.spread(sign), reference_logprobs=reference))
        return made

    return [tuple(rows(1.0) + rows(-1.0)) for _ in range(count)]


def _double(batch: Batch) -> Batch:
    columns = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    wide = {n: c.double() if c is not None and c.is_floating_point() else c for n, c in columns.items()}
    return Batch(**wide)


def _loss(
    objective: DPO, units: list[Unit], totals: Totals, shift: float = 0.5
) -> tuple[float, dict[int, torch.Tensor]]:
    """Loss, and the gradient of each sample's log-probs, at log-probs that depend on the ids alone."""
    batch = _double(collate(units, 0))
    logprobs = (-0.01 * batch.ids.double() - 0.5).requires_grad_()
    loss, _ = objective.loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros_like(logprobs)), totals)
    loss.backward()
    assert logprobs.grad is not None
    samples = [sample for unit in units for sample in unit]
    return loss.item(), {id(s): logprobs.grad[i, : len(s)] for i, s in enumerate(samples)}


def test_value_and_gradient_are_those_of_the_formula(make_sample: MakeSample) -> None:
    """−log σ(βΔ) a pair, by hand; ∂/∂ℓ is −βσ(−βΔ) on chosen tokens and the opposite on rejected: 1,000 pairs."""
    objective = DPO(beta=0.3)
    for seed in range(250):
        units = _pairs(make_sample, seed)
        value, gradients = _loss(objective, units, Totals.of(units))
        expected = 0.0
        for unit in units:
            delta = 0.0
            for s, sign in zip(unit, _signs(unit), strict=True):
                assert s.reference_logprobs is not None
                gap = (-0.01 * s.ids.double() - 0.5) - s.reference_logprobs.double()
                delta += sign * float(gap[s.mask].sum())
            expected += math.log1p(math.exp(-0.3 * delta)) / len(units)
            slope = -0.3 / (1 + math.exp(0.3 * delta)) / len(units)
            for s, sign in zip(unit, _signs(unit), strict=True):
                wanted = s.mask.double() * sign * slope
                torch.testing.assert_close(gradients[id(s)], wanted, atol=1e-9, rtol=0)
        assert value == pytest.approx(expected, abs=1e-9)


def test_at_the_reference_the_loss_is_log_2_and_swapping_a_pair_flips_the_gradient(
    make_sample: MakeSample,
) -> None:
    (unit,) = _pairs(make_sample, 0, count=1)
    at = tuple(dataclasses.replace(s, reference_logprobs=-0.01 * s.ids.float() - 0.5) for s in unit)
    swapped = tuple(
        dataclasses.replace(s, advantages=-s.spread(sign)) for s, sign in zip(at, _signs(at), strict=True)
    )
    totals = Totals.of([at])
    value, gradients = _loss(DPO(), [at], totals)
    flipped, opposite = _loss(DPO(), [swapped], totals)
    assert value == pytest.approx(math.log(2), abs=1e-6)
    assert flipped == pytest.approx(math.log(2), abs=1e-6)
    for one, two in zip(at, swapped, strict=True):
        torch.testing.assert_close(gradients[id(one)], -opposite[id(two)], atol=1e-6, rtol=0)


@pytest.mark.parametrize("budget", [1, 30, 90, 10_000])
def test_no_micro_batch_cuts_a_pair(make_sample: MakeSample, budget: int) -> None:
    """Loss and gradients are the same whatever fits into a forward pass."""
    units = _pairs(make_sample, 7, count=9)
    totals = Totals.of(units)
    value, gradients = _loss(DPO(), units, totals)
    parts = [_loss(DPO(), pack, totals) for pack in micro_batches(units, budget)]
    assert sum(part[0] for part in parts) == pytest.approx(value, abs=1e-12)
    found = {key: grad for _, part in parts for key, grad in part.items()}
    for key, gradient in gradients.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-12, rtol=0)


def test_a_reference_is_declared_and_missed(make_sample: MakeSample) -> None:
    assert DPO().needs().auxiliary == {"reference"}
    batch = collate([(make_sample([0, 1]),)], 0)
    outputs = Outputs(logprobs=torch.zeros(1, 2), entropy=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="reference_logprobs"):
        DPO().loss(batch, outputs, Totals(tokens=1, sequences=1, units=1))
