"""What an update finds in its micro-batches, in one process or in all of a team."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from envgym_trainers.batch import Batch, Outputs, Unit
from envgym_trainers.distributed.team import Team
from envgym_trainers.learner.mismatch import Mismatch
from envgym_trainers.learner.staleness import ImportanceTally
from envgym_trainers.objectives import Metrics, merge_metrics

__all__ = ["Findings"]


@dataclass(slots=True, kw_only=True)
class Findings:
    """Sums over micro-batches."""

    loss: float = 0.0
    groups: set[str] = field(default_factory=set)
    """Those of micro-batches whose loss was not finite."""
    mismatch: Mismatch = field(default_factory=Mismatch)
    importance: ImportanceTally = field(default_factory=ImportanceTally)
    parts: list[Metrics] = field(default_factory=list)
    """The objective's metrics."""

    def add(
        self, pack: Sequence[Unit], batch: Batch, outputs: Outputs, loss: float, metrics: Metrics, version: int
    ) -> None:
        """Count a micro-batch; ``version`` is that of the current weights."""
        self.mismatch.add(batch, outputs.logprobs, version)
        self.importance.add(batch, outputs.logprobs)
        if not math.isfinite(loss):
            self.groups |= {sample.group for unit in pack for sample in unit}
        self.loss += loss
        self.parts.append(metrics)

    def of_all(self, team: Team) -> Findings:
        """Return what all processes of a team found; each calls this."""
        own: dict[str, Any] = {
            "loss": self.loss,
            "groups": sorted(self.groups),
            "mismatch": dataclasses.asdict(self.mismatch),
            "importance": dataclasses.asdict(self.importance),
            "metrics": merge_metrics(self.parts),
        }
        whole = Findings()
        for told in team.exchange(own):
            whole.loss += told["loss"]
            whole.groups |= set(told["groups"])
            whole.mismatch += Mismatch(**told["mismatch"])
            whole.importance += ImportanceTally(**told["importance"])
            metrics = told["metrics"].items()
            whole.parts.append({name: torch.tensor(value, dtype=torch.float64) for name, value in metrics})
        return whole

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the objective, of the mismatch and of the importance weights."""
        return {**merge_metrics(self.parts), **self.mismatch.metrics(), **self.importance.metrics()}
