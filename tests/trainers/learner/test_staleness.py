"""How old tokens are, what their weights cost, and that old ones are compared with nobody."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from envgym_trainers.batch import Batch, Outputs, Sample, as_units, collate
from envgym_trainers.learner.mismatch import Mismatch
from envgym_trainers.learner.staleness import ImportanceTally, staleness
from envgym_trainers.objectives.grpo import GRPO
from envgym_trainers.objectives.ops.reduction import Totals


def _sample(logprobs: list[float], versions: list[int] | None = None, version: int = 0) -> Sample:
    """A prompt of one token, and as many sampled ones as there are log-probs."""
    length = len(logprobs) + 1
    mask = torch.arange(length) > 0
    return Sample(
        ids=torch.arange(length),
        mask=mask,
        logprobs=torch.tensor([math.nan, *logprobs]),
        advantages=mask.float(),
        group="g",
        version=version,
        versions=None if versions is None else torch.tensor([0, *versions]),
    )


def _batch(*samples: Sample) -> Batch:
    return collate(as_units(samples), 0)


def test_staleness_is_counted_by_token() -> None:
    """Versions 5, 5, 4, 2 under weights 5: ages 0, 0, 1, 3. A second sample of version 3: ages 2, 2."""
    row = staleness([_sample([-1.0] * 4, [5, 5, 4, 2]), _sample([-1.0] * 2, version=3)], 5)
    assert (row["staleness_mean"], row["staleness_max"]) == (pytest.approx(8 / 6), 3)
    assert row["off_policy_share"] == pytest.approx(4 / 6)
    ages = {name: value for name, value in row.items() if name.startswith("staleness/")}
    assert ages == {f"staleness/{age}": pytest.approx(n / 6) for age, n in ((0, 2), (1, 1), (2, 2), (3, 1))}


def test_the_effective_sample_size_by_hand() -> None:
    """Weights 1, 2 and 3: mean 2, (1 + 2 + 3)² / (3 · 14) = 6/7; what the engine did not tell counts nowhere."""
    batch = _batch(_sample([-1.0, -1.0]), _sample([-1.0, math.nan]))
    logprobs = torch.tensor([[0.0, -1.0, -1.0 + math.log(2)], [0.0, -1.0 + math.log(3), 0.0]])
    tally = ImportanceTally()
    tally.add(batch, logprobs)
    assert tally.metrics() == {"importance_mean": pytest.approx(2), "effective_share": pytest.approx(6 / 7)}
    assert ImportanceTally().metrics() == {"importance_mean": 1.0, "effective_share": 1.0}


def test_only_tokens_of_the_current_weights_are_compared() -> None:
    """The older half of one completion is a nat off, and rightly so; the newer one is not."""
    batch = _batch(_sample([-2.0, -2.0, -1.0], [6, 6, 7]))
    mismatch = Mismatch()
    mismatch.add(batch, torch.full((1, 4), -1.0), 7)
    assert (mismatch.tokens, mismatch.mean) == (1, 0)
    mismatch.add(batch, torch.full((1, 4), -1.0), 6)
    assert (mismatch.tokens, mismatch.mean) == (3, pytest.approx(2 / 3))


def test_with_one_update_the_policy_before_the_step_is_the_current_one() -> None:
    """The decoupled loss (AReaL): w = exp(o − b) on a ratio exp(ℓ − o), whether o was computed before or is ℓ."""
    logprobs = torch.tensor([[0.0, -0.7, -1.4]])
    sample = _sample([-1.0, -1.2])
    told = dataclasses.replace(sample, old_logprobs=logprobs[0])
    objective = GRPO(importance_cap=1.2)
    gradients = []
    for one in (sample, told):
        current = logprobs.clone().requires_grad_()
        outputs = Outputs(logprobs=current, entropy=torch.zeros(1, 3))
        units = as_units([one])
        loss, _ = objective.loss(collate(units, 0), outputs, Totals.of(units))
        loss.backward()
        assert current.grad is not None
        gradients.append(current.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    weights = [min(1.2, math.exp(0.3)), math.exp(-0.2)]
    torch.testing.assert_close(gradients[0], -torch.tensor([[0.0, *weights]]) / 2)
