"""How old the tokens of a step are, and what weighing them by importance costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envgym_trainers.batch import Batch, Sample
from envgym_trainers.objectives.ops.importance import engine_gap

__all__ = ["ImportanceTally", "staleness"]

_MAX_LOG_WEIGHT = 20.0


def staleness(samples: Sequence[Sample], version: int) -> dict[str, float]:
    """Return how many versions older than the current weights those are that sampled the tokens.

    Args:
        samples: what a step trains on, at least one.
        version: version of the current weights.

    Returns:
        mean and maximum over sampled tokens; ``off_policy_share``, the share of tokens of older weights; and
        ``staleness/K``, the share of tokens that are K versions old.
    """
    ages = version - torch.cat([sample.token_versions[sample.mask] for sample in samples])
    found, counts = ages.unique(return_counts=True)
    return {
        "staleness_mean": float(ages.double().mean()),
        "staleness_max": float(ages.max()),
        "off_policy_share": float((ages > 0).double().mean()),
        **{
            f"staleness/{age}": count / len(ages)
            for age, count in zip(found.tolist(), counts.tolist(), strict=True)
        },
    }


@dataclass(slots=True)
class ImportanceTally:
    """Importance weights w = exp(o − b), uncapped, over the sampled tokens of an optimizer batch."""

    tokens: int = 0
    total: float = 0.0
    squares: float = 0.0

    @torch.no_grad()
    def add(self, batch: Batch, logprobs: Tensor) -> None:
        """Count the tokens whose log-prob the engine reported."""
        reported = batch.mask & ~batch.behaviour_logprobs.isnan()
        logs = engine_gap(batch, logprobs)[reported].double()
        weights = logs.clamp(-_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT).exp()
        self.tokens += weights.numel()
        self.total += float(weights.sum())
        self.squares += float(weights.square().sum())

    def __add__(self, other: ImportanceTally) -> ImportanceTally:
        """Return the tally of two parts of a batch together."""
        return ImportanceTally(
            tokens=self.tokens + other.tokens,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )

    def metrics(self) -> dict[str, float]:
        """Return the mean weight, and Kish's effective sample size (Σw)²/Σw² as a share of the tokens.

        Both are 1 where engine and trainer agree.
        """
        if not self.tokens:
            return {"importance_mean": 1.0, "effective_share": 1.0}
        return {
            "importance_mean": self.total / self.tokens,
            "effective_share": self.total**2 / (self.tokens * self.squares),
        }
