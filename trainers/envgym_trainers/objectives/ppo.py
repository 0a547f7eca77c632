"""PPO: proximal policy optimization with a critic, arXiv 1707.06347; advantages by GAE, arXiv 1506.02438.

    r_t = reward placed at token t − κ·(o_t − f_t)
    δ_t = r_t + γ·V(s_{t+1}) − V(s_t)              V after the last token is 0
    A_t = δ_t + γλ·A_{t+1},   R_t = A_t + V(s_t)
    L   = 1/N Σ_t m·[ −min(rA, clip(r, 1−ε_low, 1+ε_high)·A)·w + c·½·max((v−R)², (v_clip−R)²) ],   r = exp(ℓ − o)

t runs over *sampled* tokens only: the state after a token is the one in which the next is sampled, with any text
of tools and users between them. A turn's reward is placed at its last token, and the rest of the episode's reward
at the very last token. v_clip = V + clip(v − V, ±ε_v), V from before the step.

Deviations from the papers: token mean over the optimizer batch; advantages are whitened over all tokens of the
step; κ, off by default, is InstructGPT's penalty towards the reference (arXiv 2203.02155); ℓ − o is held within
±20; w, off by default, corrects for the engine's own probabilities; a truncated episode is not bootstrapped,
because its score already values the truncation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs, Sample, Unit
from envgym_trainers.objectives.base import AuxiliaryName, Member, Metrics, Needs, Objective
from envgym_trainers.objectives.ops.importance import ImportanceSettings
from envgym_trainers.objectives.ops.policy_gradient import clipped_surrogate, policy_metrics
from envgym_trainers.objectives.ops.reduction import Totals, token_mean

__all__ = ["PPO", "gae"]


class PPO(Objective):
    """Clipped surrogate with per-token advantages of a critic."""

    class Config(ImportanceSettings, Objective.Config):
        """Settings of advantages and loss."""

        gamma: float = Field(default=1.0, gt=0, le=1)
        """γ: discount per sampled token."""
        gae_lambda: float = Field(default=0.95, ge=0, le=1)
        """λ: 1 uses the returns only, 0 the critic's one-step errors only."""
        clip_low: float = Field(default=0.2, ge=0, le=1)
        """ε_low: the ratio is clipped below at 1 − ε_low."""
        clip_high: float = Field(default=0.2, ge=0)
        """ε_high: the ratio is clipped above at 1 + ε_high."""
        value_coefficient: float = Field(default=0.5, ge=0)
        """c: weight of the critic's loss."""
        value_clip: float | None = Field(default=0.2, gt=0)
        """ε_v: maximum move of a value from before the step; None, in a recipe false, for no clip."""
        whiten: bool = True
        """Whiten the advantages of a step to mean 0 and standard deviation 1."""
        kl_coefficient: float = Field(default=0.0, ge=0)
        """κ: weight of the penalty towards the reference model; a value above 0 needs one."""

    config: Config

    def needs(self) -> Needs:
        """Require a critic; if ``kl_coefficient`` is above 0, also a reference model and the old log-probs."""
        penalised = self.config.kl_coefficient > 0
        names: set[AuxiliaryName] = {"critic", "reference"} if penalised else {"critic"}
        return Needs(auxiliary=frozenset(names), old_logprobs=penalised)

    def units(self, members: Sequence[Member]) -> list[Unit]:
        """Give every sampled token its own advantage and return; each sample is a unit."""
        return [(sample,) for member in members if member.samples for sample in self._with_credit(member)]

    def prepare(self, units: list[Unit]) -> list[Unit]:
        """Whiten the advantages over all sampled tokens of the step."""
        columns = [s.advantages[s.mask] for unit in units for s in unit if s.advantages is not None]
        if not self.config.whiten or not columns or (together := torch.cat(columns)).numel() < 2:
            return units
        mean, deviation = together.mean(), together.std() + 1e-8
        return [tuple(_shifted(sample, mean, deviation) for sample in unit) for unit in units]

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        """Return the token mean of surrogate and value loss; see ``Objective.loss``."""
        if outputs.values is None or batch.values is None or batch.returns is None:
            raise ValueError("PPO needs a critic's values in the batch and in the outputs")
        c = self.config
        clip = {"clip_low": c.clip_low, "clip_high": c.clip_high}
        surrogate = clipped_surrogate(batch, outputs.logprobs, **clip, importance=c)
        errors = (outputs.values - batch.returns).square()
        if c.value_clip is not None:
            moved = (outputs.values - batch.values).clamp(-c.value_clip, c.value_clip)
            errors = torch.maximum(errors, (batch.values + moved - batch.returns).square())
        value_loss = token_mean(0.5 * errors, batch.mask, totals)
        metrics = {
            **policy_metrics(batch, outputs, totals, **clip),
            "value_loss": value_loss.detach(),
            "return": token_mean(batch.returns, batch.mask, totals),
            "value": token_mean(batch.values, batch.mask, totals),
        }
        return token_mean(surrogate, batch.mask, totals) + c.value_coefficient * value_loss, metrics

    def _with_credit(self, member: Member) -> list[Sample]:
        """Run GAE over the sampled tokens of all samples of a member, one after another."""
        masks = [sample.mask for sample in member.samples]
        rewards = torch.cat([self._rewards(sample)[sample.mask] for sample in member.samples])
        turns = sum(float(s.turn_rewards[s.mask].sum()) for s in member.samples if s.turn_rewards is not None)
        rewards[-1] += member.reward - turns
        values = torch.cat([_required(sample.values, "values")[sample.mask] for sample in member.samples])
        advantages = gae(rewards, values.double(), gamma=self.config.gamma, gae_lambda=self.config.gae_lambda)
        columns = zip(_by_sample(advantages, masks), _by_sample(advantages + values, masks), strict=True)
        return [
            dataclasses.replace(sample, advantages=own, returns=returns)
            for sample, (own, returns) in zip(member.samples, columns, strict=True)
        ]

    def _rewards(self, sample: Sample) -> Tensor:
        """Return the rewards of turns minus the penalty towards the reference. [T] float64

        Both sides of the penalty are the trainer's: the engine may compute otherwise, or report nothing.
        """
        rewards = sample.spread(0.0).double() if sample.turn_rewards is None else sample.turn_rewards.double()
        if self.config.kl_coefficient > 0:
            reference = _required(sample.reference_logprobs, "reference_logprobs")
            old = _required(sample.old_logprobs, "old_logprobs")
            rewards = rewards - self.config.kl_coefficient * (old - reference)
        return rewards


def gae(rewards: Tensor, values: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Return the generalised advantage estimates of n consecutive states; the value after the last is 0.

    Args:
        rewards: [n] rewards received on leaving each state.
        values: [n] value V of each state.
        gamma: discount per state.
        gae_lambda: 1 gives discounted returns minus values, 0 the one-step errors δ.
    """
    following = torch.cat([values[1:], values.new_zeros(1)])
    errors = rewards + gamma * following - values
    advantages = torch.empty_like(errors)
    running = errors.new_zeros(())
    for t in reversed(range(len(errors))):
        running = errors[t] + gamma * gae_lambda * running
        advantages[t] = running
    return advantages


def _required(column: Tensor | None, name: str) -> Tensor:
    if column is None:
        raise ValueError(f"PPO needs {name} in every sample")
    return column


def _by_sample(column: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
    """Split a column over sampled tokens into one [T] float32 per mask, 0 outside it."""
    parts = column.float().split([int(mask.sum()) for mask in masks])
    return [torch.zeros(len(mask)).masked_scatter(mask, part) for mask, part in zip(masks, parts, strict=True)]


def _shifted(sample: Sample, mean: Tensor, deviation: Tensor) -> Sample:
    advantages = (_required(sample.advantages, "advantages") - mean) / deviation
    return dataclasses.replace(sample, advantages=torch.where(sample.mask, advantages, 0.0))
