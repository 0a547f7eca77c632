"""AdamW on float32 copies: small steps on 16-bit weights add up, and the copies survive a checkpoint."""

from __future__ import annotations

import math

import pytest
import torch

from envgym_trainers.learner.optimizer import MasterAdamW
from envgym_trainers.recipe import OptimizerConfig

CONFIG = OptimizerConfig(learning_rate=1e-6, clip_norm=1e9)


def _parameter(dtype: torch.dtype) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(0.01, 0.03, 64).bfloat16().to(dtype))


def _train(optimizer: MasterAdamW, parameter: torch.nn.Parameter, steps: int) -> None:
    for _ in range(steps):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step(CONFIG.learning_rate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_below_the_precision_of_the_weights_add_up(dtype: torch.dtype) -> None:
    """Each of 150 steps of 1e-6 rounds away in 16 bits; together they move the weights by 1.5e-4."""
    wide, narrow = _parameter(torch.float32), _parameter(dtype)
    for parameter in (wide, narrow):
        _train(MasterAdamW([parameter], CONFIG), parameter, 150)
    torch.testing.assert_close(narrow.float(), wide, atol=7e-5, rtol=0)  # half a unit of bfloat16 at 0.03
    assert narrow.dtype is dtype
    plain = _parameter(dtype)
    adamw = torch.optim.AdamW([plain], lr=CONFIG.learning_rate, betas=CONFIG.betas, weight_decay=0.0)
    before = plain.detach().clone()
    for _ in range(150):
        plain.grad = torch.ones_like(plain)
        adamw.step()
    assert torch.equal(plain[32:], before[32:])  # the fault that the copies are there for


def test_float32_weights_are_their_own_masters() -> None:
    parameter = _parameter(torch.float32)
    optimizer = MasterAdamW([parameter], CONFIG)
    _train(optimizer, parameter, 1)
    assert optimizer.state()["masters"] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_restored_optimizer_goes_on_where_it_was(dtype: torch.dtype) -> None:
    """Also below the precision of the weights: 75 and 75 steps are 150 steps."""
    whole, first = _parameter(dtype), _parameter(dtype)
    _train(MasterAdamW([whole], CONFIG), whole, 150)
    optimizer = MasterAdamW([first], CONFIG)
    _train(optimizer, first, 75)
    second = torch.nn.Parameter(first.detach().clone())
    resumed = MasterAdamW([second], CONFIG)
    resumed.restore(optimizer.state())
    _train(resumed, second, 75)
    assert torch.equal(second, whole)


def test_a_gradient_that_is_not_finite_is_not_applied_and_is_cleared() -> None:
    parameter = _parameter(torch.bfloat16)
    before = parameter.detach().clone()
    optimizer = MasterAdamW([parameter], CONFIG)
    parameter.grad = torch.full_like(parameter, torch.nan)
    assert not torch.isfinite(torch.tensor(optimizer.step(1e-2)))
    assert torch.equal(parameter, before)
    assert parameter.grad is None


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    """1 and 255 times 1/512: in bfloat16 the small ones vanish in the sum."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([parameter], CONFIG)
    for share in (1.0, *[1 / 512] * 255):
        (parameter * share).sum().backward()
    assert optimizer.step(0.0) == pytest.approx(1 + 255 / 512)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 31, 63])
def test_one_gradient_that_is_not_finite_is_seen(dtype: torch.dtype, value: float, at: int) -> None:
    """Wherever it stands, and beside a parameter of another precision and one without elements."""
    parameters = [_parameter(dtype), _parameter(torch.float32), torch.nn.Parameter(torch.empty(0))]
    optimizer = MasterAdamW(parameters, CONFIG)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    assert optimizer.sound()
    assert parameters[0].grad is not None
    parameters[0].grad[at] = value
    assert not optimizer.sound()
