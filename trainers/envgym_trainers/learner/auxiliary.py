"""Models beside the policy, a reference, a critic or a reward model, and their common life cycle.

Each is made with the learner, annotates the samples of a step before the objective sees them, and saves its
changes with the checkpoint. A critic also gives outputs to the loss, and takes its optimizer step with the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from envgym_trainers.batch import IDLE, Batch, Sample, Unit, as_units, collate, micro_batches
from envgym_trainers.distributed.team import ALONE, Team

__all__ = ["Auxiliary", "AuxiliaryModels", "annotate_tokens"]


class Auxiliary:
    """One model beside the policy. Every method has a default that does nothing."""

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples, in order, with this model's column filled."""
        return list(samples)

    def rescore(self, samples: Sequence[Sequence[Sample]], scores: Sequence[float]) -> list[float]:
        """Return the scores of the members of one group.

        Args:
            samples: the samples of each member; a member without samples keeps its score.
            scores: the environment's scores, NaN where missing.
        """
        del samples
        return list(scores)

    def values(self, batch: Batch) -> Tensor | None:
        """Return ``Outputs.values``, with gradient, or ``None`` if the model is not a critic."""
        del batch
        return None

    def step(self, schedule: float) -> dict[str, float]:
        """Take an optimizer step at the model's rate times ``schedule``; return metrics."""
        del schedule
        return {}

    def sound(self) -> bool:
        """Return true if the gradients of the loss are finite; an update is taken as a whole or not at all."""
        return True

    def discard(self) -> None:
        """Clear the gradients of an update that is not taken."""

    def state(self) -> dict[str, Any]:
        """Return the state for the checkpoint; empty for a model that does not change."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``."""


class AuxiliaryModels:
    """The auxiliary models of a run, by name."""

    def __init__(self, models: Mapping[str, Auxiliary] | None = None) -> None:
        self._models = dict(models or {})

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        """Fill every model's column."""
        annotated = list(samples)
        for model in self._models.values():
            annotated = model.annotate(annotated)
        return annotated

    def rescore(self, samples: Sequence[Sequence[Sample]], scores: Sequence[float]) -> list[float]:
        """Return the scores of a group; see ``Auxiliary.rescore``."""
        rescored = list(scores)
        for model in self._models.values():
            rescored = model.rescore(samples, rescored)
        return rescored

    def values(self, batch: Batch) -> Tensor | None:
        """Return the critic's values, or ``None`` without a critic."""
        found = (model.values(batch) for model in self._models.values())
        return next((values for values in found if values is not None), None)

    def step(self, schedule: float) -> dict[str, float]:
        """Step every trained model; return metrics prefixed by the model's name."""
        return {
            f"{name}/{metric}": value
            for name, model in self._models.items()
            for metric, value in model.step(schedule).items()
        }

    def unsound(self) -> list[str]:
        """Return the names of the models whose gradients are not finite."""
        return [name for name, model in self._models.items() if not model.sound()]

    def discard(self) -> None:
        """Clear every model's gradients."""
        for model in self._models.values():
            model.discard()

    def state(self) -> dict[str, Any]:
        """Return the state of every model."""
        return {name: model.state() for name, model in self._models.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``."""
        for name, model in self._models.items():
            model.restore(state[name])


@torch.no_grad()
def annotate_tokens(
    samples: Sequence[Sample],
    column: str,
    run: Callable[[Batch], Tensor],
    *,
    pad_id: int,
    max_tokens: int,
    team: Team = ALONE,
) -> list[Sample]:
    """Fill a per-token column of ``samples``, in order, from forward passes in micro-batches.

    A sample that comes out not finite is run again alone, so that it is so by its own tokens only.

    Args:
        samples: any number.
        column: field of ``Sample``.
        run: maps a batch to the column, [B, T].
        pad_id: any id of the vocabulary.
        max_tokens: maximum number of tokens in a forward pass, padding included.
        team: the processes that make the same passes, each for samples of its own.
    """
    found: dict[int, Tensor] = {}

    def run_all(packs: Sequence[Sequence[Unit]]) -> None:
        for pack in team.level(packs):
            rows = run(collate(pack or IDLE, pad_id))
            for (sample,), row in zip(pack, rows, strict=bool(pack)):
                found[id(sample)] = row[: len(sample)].cpu()

    run_all(micro_batches(as_units(samples), max_tokens))
    # Shared prefixes and masked attention (0 · NaN) spread it to the other samples of a micro-batch.
    broken = [sample for sample in samples if not bool(found[id(sample)][sample.mask].isfinite().all())]
    run_all([[(sample,)] for sample in broken])
    filled: list[dict[str, Any]] = [{column: found[id(sample)]} for sample in samples]
    return [replace(sample, **values) for sample, values in zip(samples, filled, strict=True)]
