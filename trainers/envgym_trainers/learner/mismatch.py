"""The distance between the engine that sampled and the trainer that learns from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envgym.errors import EnvgymError
from envgym_trainers.batch import Batch
from envgym_trainers.objectives.ops.importance import engine_gap

__all__ = ["EngineMismatch", "Mismatch"]

_OFF = 0.1
"""Difference in nats from which a single token counts as off."""


class EngineMismatch(EnvgymError):
    """The engine's log-probs are too far from the trainer's, on tokens that the current weights sampled.

    Such a run would train on silently wrong numbers: an engine that did not take over the weights, another
    temperature, another tokenizer, a template that the two render differently.
    """


@dataclass(slots=True)
class Mismatch:
    """Absolute differences |o − b| over the sampled tokens of an optimizer batch, in nats."""

    tokens: int = 0
    total: float = 0.0
    largest: float = 0.0
    off: int = 0

    @torch.no_grad()
    def add(self, batch: Batch, logprobs: Tensor, version: int) -> None:
        """Count the tokens that weights ``version`` sampled: older weights differ rightly."""
        reported = batch.mask & ~batch.behaviour_logprobs.isnan()
        if batch.versions is not None:
            reported = reported & (batch.versions == version)
        gaps = engine_gap(batch, logprobs)[reported].abs()
        if gaps.numel():
            self.tokens += gaps.numel()
            self.total += float(gaps.double().sum())
            self.largest = max(self.largest, float(gaps.max()))
            self.off += int((gaps > _OFF).sum())

    def __add__(self, other: Mismatch) -> Mismatch:
        """Return the mismatch of two parts of a batch together."""
        return Mismatch(
            tokens=self.tokens + other.tokens,
            total=self.total + other.total,
            largest=max(self.largest, other.largest),
            off=self.off + other.off,
        )

    @property
    def mean(self) -> float:
        """Mean difference; 0 where nothing can be compared, NaN where a log-prob is."""
        return self.total / self.tokens if self.tokens else 0.0

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "engine_gap": self.mean,
            "engine_gap_max": self.largest,
            "engine_off_share": self.off / max(1, self.tokens),
            "engine_compared": float(self.tokens),
        }

    def explain(self, limit: float) -> str:
        """Return a message for the user."""
        return (
            f"the engine's log-probs are {self.mean:.3f} nats off the trainer's on average, {self.largest:.2f} at "
            f"most, over {self.tokens:,} tokens that the current weights sampled (mismatch_limit = {limit:g}). "
            "No update was made of them. Check that the engine runs these very weights (did a reload fail?), "
            "at the same temperature and with the same tokenizer and template; raise mismatch_limit only if its "
            "precision explains the difference"
        )
