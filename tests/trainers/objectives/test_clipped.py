"""What GRPO and DAPO promise alike: the clip, the mask, the first step, and independence of micro-batches."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym_trainers.batch import Batch, Outputs, as_units, collate, micro_batches
from envgym_trainers.objectives.base import merge_metrics
from envgym_trainers.objectives.dapo import DAPO
from envgym_trainers.objectives.grpo import GRPO
from envgym_trainers.objectives.ops.reduction import Totals

OBJECTIVES = [
    GRPO(),
    GRPO(beta=0.1, importance_cap=2.0),
    GRPO(beta=0.1, unbiased_kl=True),
    DAPO(),
    DAPO(importance_cap=2.0),
]
RATIOS = [0.5, 0.79, 0.81, 1.2, 1.27, 1.29, 4.0, 11.0]


def totals(batch: Batch) -> Totals:
    return Totals(tokens=int(batch.mask.sum()), sequences=len(batch.mask), units=len(batch.mask))


def run(objective, batch, values):
    """Loss, gradient and metrics of a batch taken whole."""
    logprobs = values.clone().requires_grad_()
    loss, metrics = objective.loss(batch, Outputs(logprobs=logprobs, entropy=values.abs()), totals(batch))
    loss.backward()
    return loss.detach(), logprobs.grad, merge_metrics([metrics])


def one_token(ratio: float, advantage: float) -> tuple[Batch, torch.Tensor]:
    """A batch of one sampled token whose ratio lies just inside ``ratio``."""
    mask = torch.tensor([[False, True]])
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    batch = Batch(
        ids=torch.zeros(1, 2, dtype=torch.int64),
        attention=torch.ones_like(mask),
        mask=mask,
        behaviour_logprobs=zeros,
        advantages=zeros + advantage,
        unit=torch.zeros(1, dtype=torch.int64),
        old_logprobs=zeros,
    )
    return batch, zeros + math.log(ratio) - 1e-9


@pytest.mark.parametrize(
    ("objective", "advantage", "passes"),
    [
        (GRPO(), 1.0, [True, True, True, True, False, False, False, False]),
        (DAPO(), 1.0, [True, True, True, True, True, False, False, False]),
        (GRPO(), -1.0, [False, False, True, True, True, True, True, True]),
        (DAPO(), -1.0, [False, False, True, True, True, True, True, True]),
    ],
)
def test_clip_gradient_table(objective, advantage, passes):
    """∂L/∂ℓ is −rA where the clip lets it through and 0 elsewhere; the metric names the side."""
    for ratio, through in zip(RATIOS, passes, strict=True):
        loss, gradient, metrics = run(objective, *one_token(ratio, advantage))
        assert gradient[0, 1].item() == pytest.approx(-ratio * advantage if through else 0.0, abs=1e-7)
        limit = 1 + objective.config.clip_high if advantage > 0 else 1 - objective.config.clip_low
        assert loss.item() == pytest.approx(-advantage * (ratio if through else limit), abs=1e-7)
        assert metrics["clip_low"] == float(not through and advantage < 0)
        assert metrics["clip_high"] == float(not through and advantage > 0)
        assert metrics["ratio_max"] == pytest.approx(ratio)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("filler", [math.nan, math.inf, -math.inf, 1e30])
def test_what_is_outside_the_mask_changes_no_bit(random_batch, objective, filler):
    """Ids, log-probs, advantages and entropy outside the mask may be anything."""
    batch, values = random_batch()

    def spoil(tensor):
        return torch.where(batch.mask, tensor, filler)

    spoilt = dataclasses.replace(
        batch,
        ids=torch.where(batch.mask, batch.ids, 5),
        behaviour_logprobs=spoil(batch.behaviour_logprobs),
        advantages=spoil(batch.advantages),
        old_logprobs=spoil(batch.old_logprobs),
        reference_logprobs=spoil(batch.reference_logprobs),
    )
    loss, gradient, metrics = run(objective, batch, values)
    spoilt_loss, spoilt_gradient, spoilt_metrics = run(objective, spoilt, spoil(values))
    assert torch.equal(loss, spoilt_loss)
    assert torch.equal(gradient, spoilt_gradient)
    assert metrics == spoilt_metrics
    assert torch.equal(gradient[~batch.mask], torch.zeros_like(gradient[~batch.mask]))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_invariant_to_micro_batches(random_batch, objective, parts):
    """Loss, gradient and metrics of any cut are those of the whole optimizer batch."""
    batch, values = random_batch()
    loss, gradient, metrics = run(objective, batch, values)
    logprobs = values.clone().requires_grad_()
    pieces = []
    for rows in torch.arange(6).chunk(parts):
        columns = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        part = Batch(**{name: None if c is None else c[rows] for name, c in columns.items()})
        outputs = Outputs(logprobs=logprobs[rows], entropy=values[rows].abs())
        pieces.append(objective.loss(part, outputs, totals(batch)))
    total = sum(piece[0] for piece in pieces)
    total.backward()
    assert total.item() == pytest.approx(loss.item(), abs=1e-14)
    torch.testing.assert_close(logprobs.grad, gradient, atol=1e-15, rtol=0)
    assert merge_metrics(piece[1] for piece in pieces) == pytest.approx(metrics, abs=1e-6)


@pytest.mark.parametrize("objective", [GRPO(), DAPO()])
@settings(deadline=None, max_examples=25)
@given(
    masks=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12).filter(any), min_size=1, max_size=8),
    budget=st.integers(1, 60),
)
def test_packing_by_length_changes_no_gradient(make_sample, objective, masks, budget):
    """Through ``micro_batches`` and ``collate``, padding included, each sample keeps its gradient."""
    samples = [make_sample([0, *mask], advantage=(-1.0) ** i, seed=i) for i, mask in enumerate(masks)]
    units = as_units(samples)
    whole = Totals.of(units)

    def by_group_of(packs):
        gradients = {}
        for pack in packs:
            batch = collate(pack, pad_id=0)
            logprobs = torch.where(batch.mask, batch.behaviour_logprobs, 0.0).requires_grad_()
            outputs = Outputs(logprobs=logprobs, entropy=torch.zeros_like(logprobs))
            objective.loss(batch, outputs, whole)[0].backward()
            gradients |= {id(s): logprobs.grad[i, : len(s)] for i, (s,) in enumerate(pack)}
        return gradients

    packed, together = by_group_of(micro_batches(units, budget)), by_group_of([units])
    for sample in samples:
        torch.testing.assert_close(packed[id(sample)], together[id(sample)])


@pytest.mark.parametrize("objective", [GRPO(), DAPO()])
def test_first_on_policy_step_is_reinforce(random_batch, objective):
    """With o = ℓ the ratio is 1: the gradient is that of −A·ℓ, equally aggregated, and nothing clips."""
    batch, values = random_batch()
    batch = dataclasses.replace(batch, old_logprobs=None)
    _, gradient, metrics = run(objective, batch, values)
    if isinstance(objective, GRPO):
        weight = batch.mask / (batch.mask.sum(-1, keepdim=True) * len(batch.mask))
    else:
        weight = batch.mask / batch.mask.sum()
    torch.testing.assert_close(gradient, (-batch.advantages * weight).to(gradient.dtype), rtol=1e-6, atol=1e-8)
    for name in ("clip_low", "clip_high", "approx_kl_k1", "approx_kl_k3"):
        assert metrics[name] == 0.0
    assert metrics["ratio_max"] == 1.0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_far_off_policy_stays_finite(objective):
    """A log-ratio in the hundreds overflows neither the loss nor the gradient."""
    batch, values = one_token(1.0, -1.0)
    batch = dataclasses.replace(batch, reference_logprobs=values + 500)
    for shift in (-500.0, 500.0):
        loss, gradient, _ = run(objective, batch, values + shift)
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("on_policy", [False, True])
@pytest.mark.parametrize("objective", [GRPO(importance_cap=2.0), DAPO(importance_cap=2.0)])
@pytest.mark.parametrize(
    ("behaviour", "weight"), [(0.0, 1.0), (-math.log(1.5), 1.5), (-3.0, 2.0), (math.nan, 1.0)]
)
def test_importance_weight_is_truncated_and_detached(objective, behaviour, weight, on_policy):
    """w = min(exp(o − b), 2), 1 where the engine reported nothing; it scales the gradient and has none."""
    batch, values = one_token(1.0, 1.0)
    batch = dataclasses.replace(
        batch,
        behaviour_logprobs=torch.full_like(values, behaviour),
        old_logprobs=None if on_policy else batch.old_logprobs,
    )
    loss, gradient, _ = run(objective, batch, values)
    assert loss.item() == pytest.approx(-weight)
    assert gradient[0, 1].item() == pytest.approx(-weight)


def test_kl_metrics_hand_values():
    """r = 2: k1 = −log 2 and k3 = 2 − log 2 − 1; the engine reported e⁻¹ of the old probability."""
    batch, values = one_token(2.0, 1.0)
    batch = dataclasses.replace(batch, behaviour_logprobs=torch.full_like(values, -1.0))
    _, _, metrics = run(DAPO(), batch, values)
    assert metrics["approx_kl_k1"] == pytest.approx(-math.log(2))
    assert metrics["approx_kl_k3"] == pytest.approx(1 - math.log(2))
    assert metrics["engine_kl_k3"] == pytest.approx(math.e - 2)
    assert metrics["entropy"] == pytest.approx(math.log(2))
