"""From groups to an update: rewards, advantages, samples, optimizer steps."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import torch

from envgym.records import OutcomeKind, Trajectory
from envgym.rollout.collector import Group
from envgym.seeding import derive_seed
from envgym_trainers.batch import Sample, collate, micro_batches
from envgym_trainers.controls import controlled
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.optimizer import Updater
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import load_model
from envgym_trainers.objectives import Objective
from envgym_trainers.recipe import ReinforcementRecipe

__all__ = ["Learner"]


class Learner:
    """Applies an objective to groups."""

    def __init__(self, recipe: ReinforcementRecipe, objective: Objective, language_model: LanguageModel) -> None:
        self._recipe = recipe
        self._objective = objective
        self._needs = objective.needs()
        self._threads = torch.get_num_threads()
        self._reference = load_model(recipe.model) if self._needs.reference_model else None
        self.updater = Updater(
            language_model,
            recipe.optimizer,
            temperature=recipe.sampling.temperature,
            total_updates=recipe.steps * recipe.updates,
        )

    def learn(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Take the updates of one step.

        Returns:
            metrics, averaged over the updates; only ``samples`` = 0 where nothing carried a signal.
        """
        torch.set_num_threads(self._threads)
        samples = [
            sample
            for group in groups
            for role, played in group.by_role().items()
            for sample in self._samples(group, role, played)
        ]
        if self._reference is not None:
            samples = _with_reference(samples, self._reference, self._recipe)
        if not samples:
            return {"samples": 0.0}
        rng = random.Random(derive_seed("minibatches", self._recipe.seed, step))
        rng.shuffle(samples)
        count = min(self._recipe.updates, len(samples))
        rows = [self.updater.update(samples[i::count], self._objective.loss) for i in range(count)]
        mean = {name: sum(row[name] for row in rows) / count for name in rows[0]}
        lag = [step - 1 - sample.version for sample in samples]
        return {**mean, "samples": float(len(samples)), "staleness_max": float(max(lag))}

    def _samples(self, group: Group, role: str, trajectories: Sequence[Trajectory]) -> list[Sample]:
        """Make samples of the trajectories of one role; a group's roles have a baseline each."""
        scores = [controlled(self._recipe.reward, t)[0] for t in trajectories]
        lengths = torch.tensor([t.sampled_tokens for t in trajectories])
        rewards = self._objective.shape(torch.tensor(scores, dtype=torch.float64), lengths)
        advantages = self._objective.advantages(rewards)
        name = f"{group.env}/{group.task.id}/{role}"
        found: list[Sample] = []
        for trajectory, advantage in zip(trajectories, advantages.tolist(), strict=True):
            truncated = trajectory.outcome.kind is OutcomeKind.TRUNCATED
            if trajectory.failed or (truncated and self._needs.filter_truncated):
                continue
            found += samples_of(trajectory, advantage, name)
        # The engine's log-probs are the old policy's: same weights, same temperature, float32.
        return [dataclasses.replace(sample, old_logprobs=sample.logprobs) for sample in found]


@torch.no_grad()
def _with_reference(
    samples: Sequence[Sample], reference: LanguageModel, recipe: ReinforcementRecipe
) -> list[Sample]:
    """The same samples, with the reference model's log-probs."""
    found: list[Sample] = []
    for pack in micro_batches(samples, recipe.optimizer.micro_batch_tokens):
        batch = collate(pack, reference.pad_id).to(reference.model.device)
        logprobs, _ = token_logprobs(reference.model, batch, recipe.sampling.temperature)
        rows = [row[: len(sample)].cpu() for row, sample in zip(logprobs, pack, strict=True)]
        found += [dataclasses.replace(s, reference_logprobs=r) for s, r in zip(pack, rows, strict=True)]
    return found
