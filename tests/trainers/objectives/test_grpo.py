"""GRPO: its aggregation, its KL penalty and what it needs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from envgym_trainers.batch import Outputs, as_units, collate
from envgym_trainers.objectives.grpo import GRPO
from envgym_trainers.objectives.ops.reduction import Totals


def test_short_and_long_sequences_weigh_the_same(make_sample):
    """On policy the loss is −mean A, whatever the lengths."""
    samples = [make_sample([0, 1], advantage=1.0), make_sample([0, *[1] * 9], advantage=-0.5)]
    units = as_units(samples)
    batch = collate(units, pad_id=0)
    logprobs = torch.zeros(batch.ids.shape)
    loss, _ = GRPO().loss(batch, Outputs(logprobs=logprobs, entropy=logprobs), Totals.of(units))
    assert loss.item() == pytest.approx(-0.25)


@pytest.mark.parametrize("unbiased", [False, True])
def test_kl_penalty_gradient(random_batch, unbiased):
    """At o = ℓ and A = 0, ∂k3/∂ℓ = 1 − e^{f−ℓ}; the gradient of r·k3 is ℓ − f, that of the KL itself."""
    batch, values = random_batch()
    batch = dataclasses.replace(batch, old_logprobs=None, advantages=torch.zeros_like(batch.advantages))
    logprobs = values.clone().requires_grad_()
    totals = Totals(tokens=int(batch.mask.sum()), sequences=6, units=6)
    loss, metrics = GRPO(beta=0.5, unbiased_kl=unbiased).loss(
        batch, Outputs(logprobs=logprobs, entropy=values), totals
    )
    loss.backward()
    gap = batch.reference_logprobs - values
    slope = -gap if unbiased else 1 - gap.exp()
    weight = 0.5 * batch.mask / (6 * batch.mask.sum(-1, keepdim=True))
    torch.testing.assert_close(logprobs.grad, torch.where(batch.mask, slope * weight, 0.0), rtol=1e-6, atol=1e-9)
    assert metrics["reference_kl"].item() * 0.5 == pytest.approx(loss.item())


def test_reference_model_is_declared_and_missed(random_batch):
    """β above 0 declares the need; a batch without reference log-probs is refused."""
    assert GRPO().needs().auxiliary == frozenset()
    assert GRPO(beta=0.04).needs().auxiliary == {"reference"}
    batch, values = random_batch()
    bare = dataclasses.replace(batch, reference_logprobs=None)
    with pytest.raises(ValueError, match="reference_logprobs"):
        GRPO(beta=0.04).loss(
            bare, Outputs(logprobs=values, entropy=values), Totals(tokens=1, sequences=1, units=1)
        )


def test_scores_are_the_rewards():
    """GRPO shapes nothing."""
    scores = torch.tensor([0.0, 1.0])
    assert GRPO().shape(scores, torch.tensor([3, 4])) is scores
    assert GRPO().advantages(scores).tolist() == pytest.approx([-0.7070, 0.7070], abs=1e-4)
