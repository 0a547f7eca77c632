"""One optimizer update from units of samples, in micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from envgym_trainers.batch import Batch, Outputs, Unit, collate, micro_batches
from envgym_trainers.learner.auxiliary import AuxiliaryModels
from envgym_trainers.learner.faults import NotFinite, some
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.mismatch import EngineMismatch, Mismatch
from envgym_trainers.learner.optimizer import MasterAdamW
from envgym_trainers.learner.prefix import NO_PREFIX, Prefix, by_group, run_prefix, shared_ids
from envgym_trainers.learner.staleness import ImportanceTally
from envgym_trainers.learner.states import shares_prefixes
from envgym_trainers.models.head import backbone_and_head
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.recompute import checkpointed
from envgym_trainers.objectives import Metrics, merge_metrics
from envgym_trainers.objectives.ops.reduction import Totals
from envgym_trainers.recipe import OptimizerConfig

__all__ = ["Loss", "Updater"]

_MAX_SKIPPED = 10
"""Updates in a row that may be skipped before the run stops."""


Loss = Callable[[Batch, Outputs, Totals], tuple[torch.Tensor, Metrics]]
"""Maps a batch, the models' outputs on it and the optimizer batch's totals to a share of the loss and metrics."""


class Updater:
    """Owns the policy's optimizer and its learning-rate schedule.

    Args:
        language_model: the model to train, in place.
        config: settings of the optimizer.
        temperature: temperature at which the samples were drawn.
        total_updates: number of updates in the run, for a decaying rate.
        auxiliary: models that give outputs to the loss and may be trained by it.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        config: OptimizerConfig,
        *,
        temperature: float,
        total_updates: int,
        auxiliary: AuxiliaryModels | None = None,
    ) -> None:
        self._language_model = language_model
        self._config = config
        self._temperature = temperature
        self._auxiliary = auxiliary or AuxiliaryModels()
        self._optimizer = MasterAdamW((p for p in language_model.model.parameters() if p.requires_grad), config)
        self._total_updates = max(1, total_updates)
        self.updates = 0
        """Updates done, skipped ones included."""
        self.fault = ""
        """What was not finite in the last update; ``""`` if it was taken."""
        self._skipped = 0

    @property
    def learning_rate(self) -> float:
        """Rate of the next update."""
        return self._config.learning_rate * self._schedule

    @property
    def _schedule(self) -> float:
        """Factor of every learning rate at the next update."""
        warm = min(1.0, (self.updates + 1) / (self._config.warmup_steps + 1))
        left = 1.0 - self.updates / self._total_updates if self._config.decay == "linear" else 1.0
        return warm * max(left, 0.0)

    def update(
        self, units: Sequence[Unit], loss: Loss, *, version: int = 0, mismatch_limit: float = math.inf
    ) -> dict[str, float]:
        """Take one optimizer step on ``units``.

        Args:
            units: the optimizer batch.
            loss: the objective's.
            version: version of the current weights; only what they sampled is compared with the engine.
            mismatch_limit: see ``EngineMismatch``.

        Returns:
            the objective's metrics, those of the mismatch with the engine and of importance weights, ``loss``,
            ``grad_norm`` and ``learning_rate``. An update with a loss or a gradient that is not finite is taken of
            no model: ``skipped`` is 1.

        Raises:
            EngineMismatch: the engine's log-probs are not the trainer's. No step was taken.
            NotFinite: too many updates in a row were skipped, or the step made weights that are not finite.
        """
        totals = Totals.of(units)
        parts: list[Metrics] = []
        mismatch, importance = Mismatch(), ImportanceTally()
        total = 0.0
        groups: set[str] = set()
        for pack, batch, outputs in self._forward(units):
            mismatch.add(batch, outputs.logprobs, version)
            importance.add(batch, outputs.logprobs)
            share, metrics = loss(batch, outputs, totals)
            share.backward()
            value = float(share.detach())
            if not math.isfinite(value):
                groups |= {sample.group for unit in pack for sample in unit}
            total += value
            parts.append(metrics)
        if mismatch.mean > mismatch_limit:
            self._discard()
            raise EngineMismatch(mismatch.explain(mismatch_limit))
        rate = self.learning_rate
        norm, fault = 0.0, self._fault_before(groups)
        if not fault:
            norm = self._optimizer.step(rate)
            fault = self._fault_of_gradient(norm)
        trained: dict[str, float] = {}
        if fault:
            self._discard()
        else:
            trained = self._auxiliary.step(self._schedule)
        self.updates += 1
        self.note(fault)
        return {
            **merge_metrics(parts),
            **mismatch.metrics(),
            **importance.metrics(),
            **trained,
            "loss": total,
            "grad_norm": 0.0 if fault else norm,
            "learning_rate": rate,
            "skipped": float(bool(fault)),
        }

    def _forward(self, units: Sequence[Unit]) -> Iterator[tuple[Sequence[Unit], Batch, Outputs]]:
        """Yield micro-batches and the models' outputs on them; each goes backward before the next is asked for."""
        model, pad_id = self._language_model.model, self._language_model.pad_id
        for packs in by_group(micro_batches(units, self._config.micro_batch_tokens)):
            prefix = self._run_prefix(packs)
            for pack in packs:
                batch = collate(pack, pad_id).to(model.device)
                yield pack, batch, self._run(batch, prefix)
            prefix.backward()

    def _run_prefix(self, packs: Sequence[Sequence[Unit]]) -> Prefix:
        """Run what micro-batches share, if anything, for all of them."""
        model = self._language_model.model
        if not shares_prefixes(model):
            return NO_PREFIX
        with checkpointed(model, self._config.gradient_checkpointing):
            return run_prefix(backbone_and_head(model)[0], shared_ids(packs).to(model.device))

    def _run(self, batch: Batch, prefix: Prefix) -> Outputs:
        """Run the models on a micro-batch."""
        model, how = self._language_model.model, self._config.gradient_checkpointing
        frugal = how != "off"  # which stands for memory in plenty
        with checkpointed(model, how):
            logprobs, entropy = token_logprobs(model, batch, self._temperature, prefix=prefix, frugal=frugal)
        return Outputs(logprobs=logprobs, entropy=entropy, values=self._auxiliary.values(batch))

    def note(self, fault: str) -> None:
        """Count an update that was skipped because of ``fault``, or, with ``""``, one that was taken.

        Raises:
            NotFinite: too many in a row were skipped.
        """
        self.fault = fault
        self._skipped = self._skipped + 1 if fault else 0
        if self._skipped >= _MAX_SKIPPED:
            raise NotFinite(f"{self._skipped} updates in a row were not finite and were skipped: {fault}")

    def _discard(self) -> None:
        self._optimizer.discard()
        self._auxiliary.discard()

    def _fault_before(self, groups: set[str]) -> str:
        """Name the groups whose loss was not finite, or else the auxiliary models whose gradients are not."""
        if groups:
            return f"the loss of {some(sorted(groups))}"
        unsound = self._auxiliary.unsound()
        return f"the gradient of the {some(unsound)}" if unsound else ""

    def _fault_of_gradient(self, norm: float) -> str:
        """Name the parameters whose gradient was not finite, if the ``norm`` of all gradients was not."""
        if math.isfinite(norm):
            return ""
        trained = [n for n, p in self._language_model.model.named_parameters() if p.requires_grad]
        return f"the gradient of {some([trained[i] for i in self._optimizer.not_finite])}"

    def state(self) -> dict[str, Any]:
        """Return the tensors and numbers that ``restore`` takes.

        These are the optimizer, the trained auxiliary models, and the adapters if only they are trained; a model
        that is trained whole is saved separately.
        """
        named = dict(self._language_model.model.named_parameters())
        partly = len(self._optimizer.parameters) < len(named)
        return {
            "updates": self.updates,
            "skipped": self._skipped,
            "optimizer": self._optimizer.state(),
            "adapters": {n: p.detach() for n, p in named.items() if p.requires_grad} if partly else {},
            "auxiliary": self._auxiliary.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()`` of an earlier process, with a model loaded from the same checkpoint."""
        self.updates = state["updates"]
        self._skipped = state.get("skipped", 0)
        named = dict(self._language_model.model.named_parameters())
        with torch.no_grad():
            for name, value in state["adapters"].items():
                named[name].copy_(value)
        self._optimizer.restore(state["optimizer"])
        self._auxiliary.restore(state["auxiliary"])
