"""Compare the GRPO and DAPO losses with TRL 1.16, value and gradient, in float64.

Run:  python benchmarks/oracle_trl.py

Needs trl==1.16.0 beside envgym. Exit code 1 if a difference exceeds 1e-10. TRL's own
``GRPOTrainer._compute_loss`` runs unbound on a stub that hands it the log-probs and the importance weights.
Every case has ragged lengths and tool tokens inside the completion, and is cut into 1, 2 and 4 micro-batches
on either side.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from envgym_trainers.batch import Batch, Outputs
from envgym_trainers.objectives.base import Objective
from envgym_trainers.objectives.dapo import DAPO
from envgym_trainers.objectives.grpo import GRPO
from envgym_trainers.objectives.ops.policy_gradient import clipped_surrogate
from envgym_trainers.objectives.ops.reduction import Totals

SEQUENCES, LENGTH, TOLERANCE = 8, 11, 1e-10


class DrGRPO(GRPO):
    """GRPO's clipped surrogate under the constant aggregation, which no shipped objective uses."""

    def loss(self, batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Any]:
        losses = clipped_surrogate(
            batch,
            outputs.logprobs,
            clip_low=self.config.clip_low,
            clip_high=self.config.clip_high,
            importance=self.config,
        )
        return torch.where(batch.mask, losses, 0.0).sum() / (totals.sequences * LENGTH), {}


def random_batch(seed: int, *, off_policy: bool) -> tuple[Batch, Tensor]:
    """A float64 batch with ragged lengths and holes, and log-probs near its old ones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (SEQUENCES, LENGTH)
    lengths = torch.randint(2, LENGTH + 1, (SEQUENCES, 1), generator=generator)
    attention = torch.arange(LENGTH) < lengths
    mask = attention & (torch.rand(shape, generator=generator) < 0.7)
    mask[:, 0] = True
    old = -normal(*shape).abs() - 0.1
    batch = Batch(
        ids=torch.zeros(shape, dtype=torch.int64),
        attention=attention,
        mask=mask,
        behaviour_logprobs=old + 0.5 * normal(*shape),
        advantages=normal(SEQUENCES, 1).expand(shape),
        unit=torch.arange(SEQUENCES),
        old_logprobs=old if off_policy else None,
        reference_logprobs=old + 0.3 * normal(*shape),
    )
    return batch, old + 0.4 * normal(*shape)


def cut(batch: Batch, parts: int) -> Iterator[tuple[slice, Batch]]:
    """The batch's rows in equal parts."""
    size = SEQUENCES // parts
    for start in range(0, SEQUENCES, size):
        rows = slice(start, start + size)
        names = batch.__slots__
        yield (
            rows,
            Batch(**{n: None if getattr(batch, n) is None else getattr(batch, n)[rows] for n in names}),
        )


def ours(objective: Objective, batch: Batch, values: Tensor, parts: int) -> tuple[float, Tensor]:
    """Loss and gradient by envgym."""
    logprobs = values.clone().requires_grad_()
    totals = Totals(tokens=int(batch.mask.sum()), sequences=SEQUENCES, units=SEQUENCES)
    loss = torch.zeros((), dtype=torch.float64)
    for rows, part in cut(batch, parts):
        loss = (
            loss
            + objective.loss(
                part, Outputs(logprobs=logprobs[rows], entropy=torch.zeros_like(logprobs[rows])), totals
            )[0]
        )
    loss.backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad


def theirs(
    loss_type: str, objective: GRPO | DAPO, batch: Batch, values: Tensor, parts: int
) -> tuple[float, Tensor]:
    """Loss and gradient by TRL."""
    logprobs = values.clone().requires_grad_()
    tokens = batch.mask.sum()
    settings = objective.config
    trainer = SimpleNamespace(
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=getattr(settings, "beta", 0.0), loss_type=loss_type,
        epsilon_low=settings.clip_low, epsilon_high=settings.clip_high,
        use_vllm=settings.importance_cap is not None, vllm_importance_sampling_correction=True,
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=parts,
        max_completion_length=LENGTH, _entropy_bonus_enabled=False, _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(
            num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x, gather_for_metrics=lambda x: x
        ),
        args=SimpleNamespace(
            use_bias_correction_kl=getattr(settings, "unbiased_kl", False),
            delta=None, steps_per_generation=parts,
        ),
    )  # fmt: skip
    loss = torch.zeros((), dtype=torch.float64)
    for rows, part in cut(batch, parts):
        leaf = logprobs[rows]
        trainer._get_per_token_logps_and_entropies = lambda *a, leaf=leaf, **k: (
            leaf,
            torch.zeros_like(leaf),
            None,
        )
        inputs: dict[str, Any] = {
            "prompt_ids": part.ids[:, :1], "prompt_mask": part.mask[:, :1].long(),
            "completion_ids": part.ids, "completion_mask": part.attention.long(),
            "tool_mask": part.mask.long(),
            "advantages": part.advantages[:, 0], "old_per_token_logps": part.old_logprobs,
            "ref_per_token_logps": part.reference_logprobs, "num_items_in_batch": tokens,
        }  # fmt: skip
        if settings.importance_cap is not None:
            old = leaf.detach() if part.old_logprobs is None else part.old_logprobs
            gap = (old - part.behaviour_logprobs) * part.mask
            inputs["importance_sampling_ratio"] = gap.exp().clamp(max=settings.importance_cap)
        loss = loss + GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad


def loss_cases() -> Iterator[tuple[str, GRPO | DAPO]]:
    """Every setting to sweep, with TRL's name of the loss."""
    clips = [{"clip_low": 0.2, "clip_high": 0.2}, {"clip_low": 0.2, "clip_high": 0.28}]
    for clip, cap in itertools.product(clips, (None, 2.0)):
        yield "dapo", DAPO(importance_cap=cap, **clip)
        yield "dr_grpo", DrGRPO(importance_cap=cap, **clip)
        for beta, unbiased in ((0.0, False), (0.04, False), (0.04, True)):
            yield "grpo", GRPO(importance_cap=cap, beta=beta, unbiased_kl=unbiased, **clip)


def main() -> int:
    """Run the sweep, print the largest differences and return the exit code."""
    worst: dict[str, float] = defaultdict(float)
    cases = 0
    for (name, objective), seed, off_policy in itertools.product(loss_cases(), range(5), (False, True)):
        batch, values = random_batch(seed, off_policy=off_policy)
        for our_parts, their_parts in itertools.product((1, 2, 4), repeat=2):
            our_loss, our_gradient = ours(objective, batch, values, our_parts)
            their_loss, their_gradient = theirs(name, objective, batch, values, their_parts)
            gap = max(abs(our_loss - their_loss), float((our_gradient - their_gradient).abs().max()))
            worst[name] = max(worst[name], gap)
            cases += 1
    for name, gap in worst.items():
        print(f"{name:12s} largest difference {gap:.1e}")
    print(f"{cases} loss comparisons")
    return int(max(worst.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
