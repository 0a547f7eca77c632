"""PPO: credit by hand, the loss against its formula, and independence of micro-batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from envgym.records import Task, Trajectory
from envgym_trainers.batch import Batch, Outputs, Sample
from envgym_trainers.objectives.base import Member, Needs
from envgym_trainers.objectives.ops.reduction import Totals
from envgym_trainers.objectives.ppo import PPO, gae

MakeSample = Callable[..., Sample]
_TRAJECTORY = Trajectory(env="e", task=Task(id="t", split="train", messages=()))


def _member(reward: float, *samples: Sample) -> Member:
    return Member(trajectory=_TRAJECTORY, reward=reward, samples=samples)


def _credit(objective: PPO, member: Member, column: str) -> list[list[float]]:
    return [[round(x, 5) for x in getattr(s, column).tolist()] for unit in objective.units([member]) for s in unit]


def test_gae_hand_values() -> None:
    """γ = .9, λ = .8, rewards 0 0 1, values .5 .6 .7: δ = .04 .03 .3, A₂ = .3, A₁ = .03 + .72·.3, …"""
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.6, 0.7])
    found = gae(rewards, values, gamma=0.9, gae_lambda=0.8)
    assert found.tolist() == pytest.approx([0.21712, 0.246, 0.3])


def test_without_discount_advantages_are_returns_to_go_minus_values() -> None:
    rewards, values = torch.tensor([1.0, -2.0, 4.0]), torch.tensor([0.5, 0.25, 1.0])
    assert gae(rewards, values, gamma=1.0, gae_lambda=1.0).tolist() == pytest.approx([2.5, 1.75, 3.0])
    assert gae(rewards, values, gamma=0.5, gae_lambda=0.0).tolist() == pytest.approx([0.625, -1.75, 3.0])


def test_what_tools_wrote_is_skipped_and_turns_earn_where_they_end(make_sample: MakeSample) -> None:
    """Sampled, sampled, tool, sampled: the first turn earned 1 of the episode's 3, so the last token gets 2."""
    sample = make_sample(
        [0, 1, 1, 0, 1],
        values=torch.tensor([9.0, 0.5, 0.25, 9.0, 1.0]),
        turn_rewards=torch.tensor([0, 0, 1.0, 0, 0]),
    )
    objective = PPO(gamma=1.0, gae_lambda=1.0)
    assert _credit(objective, _member(3.0, sample), "advantages") == [[0.0, 2.5, 2.75, 0.0, 1.0]]
    assert _credit(objective, _member(3.0, sample), "returns") == [[0.0, 3.0, 3.0, 0.0, 2.0]]


def test_credit_flows_through_a_rewritten_history(make_sample: MakeSample) -> None:
    """The state after the first sample's last token is the second sample's first one."""
    first = make_sample([0, 1], values=torch.tensor([0.0, 0.5]))
    second = make_sample([0, 0, 1], values=torch.tensor([0.0, 0.0, 2.0]))
    found = _credit(PPO(gamma=0.5, gae_lambda=0.0), _member(1.0, first, second), "advantages")
    assert found == [[0.0, 0.5], [0.0, 0.0, -1.0]]


def test_the_penalty_towards_the_reference_is_part_of_the_reward(make_sample: MakeSample) -> None:
    """By the trainer's own log-probs on both sides; what the engine reported, or did not, is not asked."""
    old = torch.tensor([0.0, -2.0, -3.0])
    sample = make_sample([0, 1, 1], values=torch.zeros(3), old_logprobs=old)
    sample = dataclasses.replace(
        sample,
        logprobs=torch.tensor([math.nan, -9.0, math.nan]),
        reference_logprobs=old - torch.tensor([0.0, 1.0, -2.0]),
    )
    objective = PPO(gamma=1.0, gae_lambda=1.0, kl_coefficient=0.1)
    assert objective.needs() == Needs(auxiliary=frozenset({"critic", "reference"}), old_logprobs=True)
    assert PPO().needs() == Needs(auxiliary=frozenset({"critic"}))
    assert _credit(objective, _member(1.0, sample), "advantages") == [[0.0, 1.1, 1.2]]


def test_members_without_samples_are_left_out_and_whitening_covers_the_step(make_sample: MakeSample) -> None:
    samples = [make_sample([0, 1, 1], values=torch.zeros(3)) for _ in range(2)]
    members = [_member(1.0, samples[0]), _member(math.nan), _member(-2.0, samples[1])]
    units = PPO(gamma=0.9).units(members)
    assert len(units) == 2
    for whiten in (True, False):
        prepared = PPO(gamma=0.9, whiten=whiten).prepare(units)
        kept = torch.cat([s.advantages[s.mask] for u in prepared for s in u if s.advantages is not None])
        assert (abs(float(kept.mean())) < 1e-6 and float(kept.std()) == pytest.approx(1.0)) is whiten
        assert all(not s.advantages[~s.mask].any() for u in prepared for s in u if s.advantages is not None)
    assert PPO().prepare([]) == []


def _batch(random_batch: Callable[..., tuple[Batch, torch.Tensor]], seed: int) -> tuple[Batch, Outputs]:
    batch, logprobs = random_batch(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    values, returns, moved = (torch.randn(6, 9, generator=generator, dtype=torch.float64) for _ in range(3))
    batch = dataclasses.replace(batch, values=values, returns=returns)
    outputs = Outputs(
        logprobs=logprobs.clone().requires_grad_(),
        entropy=logprobs.abs(),
        values=(values + 0.3 * moved).requires_grad_(),
    )
    return batch, outputs


def _by_formula(batch: Batch, outputs: Outputs, value_clip: float | None) -> torch.Tensor:
    """The loss token by token, as the docstring of the objective writes it."""
    assert batch.old_logprobs is not None
    assert outputs.values is not None
    assert batch.values is not None
    assert batch.returns is not None
    total = torch.zeros((), dtype=torch.float64)
    for b, t in batch.mask.nonzero().tolist():
        r = (outputs.logprobs[b, t] - batch.old_logprobs[b, t]).exp()
        advantage = batch.advantages[b, t]
        surrogate = -torch.minimum(r * advantage, r.clamp(0.8, 1.2) * advantage)
        error = (outputs.values[b, t] - batch.returns[b, t]) ** 2
        if value_clip is not None:
            old = batch.values[b, t]
            held = old + (outputs.values[b, t] - old).clamp(-value_clip, value_clip)
            error = torch.maximum(error, (held - batch.returns[b, t]) ** 2)
        total = total + surrogate + 0.5 * 0.5 * error
    return total / batch.mask.sum()


@pytest.mark.parametrize("value_clip", [0.2, None])
def test_value_and_gradient_are_those_of_the_formula(
    random_batch: Callable[..., tuple[Batch, torch.Tensor]], value_clip: float | None
) -> None:
    """Float64; 60 random off-policy batches of some 30 tokens each, with and without the clip of values."""
    objective = PPO(value_clip=value_clip)
    for seed in range(60):
        batch, outputs = _batch(random_batch, seed)
        totals = Totals(tokens=int(batch.mask.sum()), sequences=6, units=6)
        loss, _ = objective.loss(batch, outputs, totals)
        expected = _by_formula(batch, outputs, value_clip)
        leaves = [outputs.logprobs, outputs.values]
        assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
        for one, two in zip(_gradients(loss, leaves), _gradients(expected, leaves), strict=True):
            torch.testing.assert_close(one, two, atol=1e-9, rtol=0)


def _gradients(loss: torch.Tensor, leaves: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor]:
    return torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None], retain_graph=True)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_invariant_to_micro_batches(random_batch: Callable[..., tuple[Batch, torch.Tensor]], parts: int) -> None:
    batch, outputs = _batch(random_batch, 3)
    totals = Totals(tokens=int(batch.mask.sum()), sequences=6, units=6)
    whole, _ = PPO().loss(batch, outputs, totals)
    columns = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    assert outputs.values is not None
    pieces = []
    for rows in torch.arange(6).chunk(parts):
        part = Batch(**{name: None if c is None else c[rows] for name, c in columns.items()})
        given = Outputs(
            logprobs=outputs.logprobs[rows], entropy=outputs.entropy[rows], values=outputs.values[rows]
        )
        pieces.append(PPO().loss(part, given, totals)[0])
    assert sum(piece.item() for piece in pieces) == pytest.approx(whole.item(), abs=1e-12)


def test_a_batch_without_a_critic_is_refused(random_batch: Callable[..., tuple[Batch, torch.Tensor]]) -> None:
    batch, values = random_batch()
    with pytest.raises(ValueError, match="critic's values"):
        PPO().loss(batch, Outputs(logprobs=values, entropy=values), Totals(tokens=1, sequences=1, units=1))
