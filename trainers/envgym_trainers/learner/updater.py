"""One optimizer update from units of samples, in micro-batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from envgym_trainers.batch import IDLE, Batch, Outputs, Sample, Unit, as_units, collate, micro_batches
from envgym_trainers.distributed.messages import Order
from envgym_trainers.distributed.sharding import publish, shard_like
from envgym_trainers.distributed.team import ALONE, Team
from envgym_trainers.learner.auxiliary import AuxiliaryModels, annotate_tokens
from envgym_trainers.learner.faults import NotFinite, some
from envgym_trainers.learner.findings import Findings
from envgym_trainers.learner.mismatch import EngineMismatch
from envgym_trainers.learner.optimizer import MasterAdamW
from envgym_trainers.learner.prefix import NO_PREFIX, Prefix, by_group, run_prefix, shared_ids
from envgym_trainers.learner.scorer import TokenScorer
from envgym_trainers.learner.states import shares_prefixes
from envgym_trainers.models.checkpoint import Checkpoint
from envgym_trainers.models.head import backbone_and_head
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.recompute import checkpointed
from envgym_trainers.models.shard_files import outline, write_shards
from envgym_trainers.objectives import Metrics
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
        policy: the model to train, in place, or what runs it.
        config: settings of the optimizer.
        temperature: temperature at which the samples were drawn.
        total_updates: number of updates in the run, for a decaying rate.
        auxiliary: models that give outputs to the loss and may be trained by it.
        old_logprobs: fill the column of the samples that is called so.
        team: the processes that have shards of the models. The leader calls what is public; the others ``follow``.
    """

    def __init__(
        self,
        policy: LanguageModel | TokenScorer,
        config: OptimizerConfig,
        *,
        temperature: float,
        total_updates: int,
        auxiliary: AuxiliaryModels | None = None,
        old_logprobs: bool = False,
        team: Team = ALONE,
    ) -> None:
        self._scorer = policy if isinstance(policy, TokenScorer) else TokenScorer.of(policy)
        self._config = config
        self._temperature = temperature
        self._auxiliary = auxiliary or AuxiliaryModels()
        self._old_logprobs = old_logprobs
        self._team = team
        self._named = dict(self._scorer.model.named_parameters())
        trained = [parameter for parameter in self._named.values() if parameter.requires_grad]
        self._optimizer = MasterAdamW(trained, config, team, trained if self._scorer.narrow else ())
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
        shares = self._team.hand_out(
            "update",
            units,
            self._config.micro_batch_tokens,
            totals=dataclasses.asdict(totals),
            version=version,
            mismatch_limit=mismatch_limit,
        )
        return self._take([units[i] for i in shares[self._team.rank]], loss, totals, version, mismatch_limit)

    def follow(self, order: Order, loss: Loss) -> None:
        """Do this process's part of what the leader does; see ``Team``."""
        values, samples = order.values, [sample for unit in order.units for sample in unit]
        match order.name:
            case "update":
                totals = Totals(**values["totals"])
                self._take(order.units, loss, totals, values["version"], values["mismatch_limit"])
            case "annotate":
                self._team.gather(self._fill(samples))
            case "publish":
                publish(self._scorer.model, None)
            case "write":
                write_shards(Path(values["folder"]), self._tensors())
            case "resume":
                self.restore(Checkpoint(folder=Path(values["folder"])).tensors(self._team.mesh))
            case _:
                raise ValueError(f"unknown order {order.name!r}")

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples, in order, with the columns of the auxiliary models and of the old policy filled."""
        shares = self._team.hand_out("annotate", as_units(samples), self._config.micro_batch_tokens)
        parts = self._team.gather(self._fill([samples[i] for i in shares[self._team.rank]]))
        found = {i: s for share, part in zip(shares, parts, strict=True) for i, s in zip(share, part, strict=True)}
        return [found[i] for i in range(len(samples))]

    def _fill(self, samples: Sequence[Sample]) -> list[Sample]:
        samples = self._auxiliary.annotate(samples)
        if not self._old_logprobs:
            return samples
        return annotate_tokens(
            samples,
            "old_logprobs",
            lambda batch: self._scorer(batch, self._temperature)[0],
            pad_id=self._scorer.pad_id,
            max_tokens=self._config.micro_batch_tokens,
            team=self._team,
        )

    def publish(self, language_model: LanguageModel) -> None:
        """Write the weights into the leader's whole copy of the model; nothing if it is what is trained."""
        if self._team.size > 1:
            self._team.hand_out("publish")
            publish(self._scorer.model, language_model.model)

    def _take(
        self, units: Sequence[Unit], loss: Loss, totals: Totals, version: int, mismatch_limit: float
    ) -> dict[str, float]:
        """Take the step; ``units`` are this process's."""
        found = Findings()
        for pack, batch, outputs in self._forward(units):
            if not pack:
                _idle(outputs).backward()
                continue
            share, metrics = loss(batch, outputs, totals)
            share.backward()
            found.add(pack, batch, outputs, float(share.detach()), metrics, version)
        found = found.of_all(self._team)
        if found.mismatch.mean > mismatch_limit:
            self._discard()
            raise EngineMismatch(found.mismatch.explain(mismatch_limit))
        rate = self.learning_rate
        norm, fault = 0.0, self._fault_before(found.groups)
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
            **found.metrics(),
            **trained,
            "loss": found.loss,
            "grad_norm": 0.0 if fault else norm,
            "learning_rate": rate,
            "skipped": float(bool(fault)),
        }

    def _forward(self, units: Sequence[Unit]) -> Iterator[tuple[Sequence[Unit], Batch, Outputs]]:
        """Yield micro-batches and the models' outputs on them; each goes backward before the next is asked for."""
        packs = self._team.level(micro_batches(units, self._config.micro_batch_tokens))
        # A sharded layer is gathered where it runs, and would be gone where a prefix goes backward.
        for run in by_group(packs) if self._team.size == 1 else [[pack] for pack in packs]:
            prefix = self._run_prefix(run)
            for pack in run:
                batch = collate(pack or IDLE, self._scorer.pad_id).to(self._scorer.model.device)
                yield pack, batch, self._run(batch, prefix)
            prefix.backward()

    def _run_prefix(self, packs: Sequence[Sequence[Unit]]) -> Prefix:
        """Run what micro-batches share, if anything, for all of them."""
        model = self._scorer.model
        if len(packs) == 1 or not shares_prefixes(model):
            return NO_PREFIX
        with checkpointed(model, self._config.gradient_checkpointing):
            return run_prefix(backbone_and_head(model)[0], shared_ids(packs).to(model.device))

    def _run(self, batch: Batch, prefix: Prefix) -> Outputs:
        """Run the models on a micro-batch."""
        how = self._config.gradient_checkpointing
        frugal = how != "off"  # which stands for memory in plenty
        with checkpointed(self._scorer, how):
            logprobs, entropy = self._scorer(batch, self._temperature, prefix=prefix, frugal=frugal)
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
        trained = [n for n, p in self._named.items() if p.requires_grad]
        return f"the gradient of {some([trained[i] for i in self._optimizer.not_finite])}"

    def state(self) -> dict[str, Any]:
        """Return the tensors and numbers that ``restore`` takes.

        These are the optimizer, the trained auxiliary models, and the adapters if only they are trained; a model
        that is trained whole is saved separately. Of several processes, each has a part of the tensors, which
        ``write_shards`` writes; here they have no data.
        """
        return self._tensors() if self._team.size == 1 else dict(outline(self._tensors()))

    def write_shards(self, folder: Path) -> None:
        """Write the tensors of ``state`` into a folder that all processes see; nothing if ``state`` has them."""
        if self._team.size > 1:
            self._team.hand_out("write", folder=str(folder))
            write_shards(folder, self._tensors())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint, of as many processes as it may be, with a model loaded from it."""
        self._team.hand_out("resume", folder=str(checkpoint.folder))
        self.restore(checkpoint.tensors(self._team.mesh))

    def _tensors(self) -> dict[str, Any]:
        partly = len(self._optimizer.parameters) < len(self._named)
        return {
            "updates": self.updates,
            "skipped": self._skipped,
            "optimizer": self._optimizer.state(),
            "adapters": {n: p.detach() for n, p in self._named.items() if p.requires_grad} if partly else {},
            "auxiliary": self._auxiliary.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state()`` of an earlier process, with a model loaded from the same checkpoint."""
        self.updates = state["updates"]
        self._skipped = state.get("skipped", 0)
        with torch.no_grad():
            for name, value in state["adapters"].items():
                self._named[name].copy_(shard_like(value, self._named[name]))
        self._optimizer.restore(state["optimizer"])
        self._auxiliary.restore(state["auxiliary"])


def _idle(outputs: Outputs) -> torch.Tensor:
    """Return a loss of 0 that has gradients: those of all processes are added after each micro-batch."""
    models = [outputs.logprobs] if outputs.values is None else [outputs.logprobs, outputs.values]
    return torch.stack([output.sum() for output in models]).sum() * 0
