"""Turn groups into updates: rewards, samples, units, optimizer steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from envgym.records import Trajectory
from envgym.rollout.collector import Group
from envgym.seeding import derive_seed
from envgym_trainers.batch import Batch, Sample, Unit
from envgym_trainers.controls import RewardSettings, controlled
from envgym_trainers.learner.auxiliary import Auxiliary, AuxiliaryModels, annotate_tokens
from envgym_trainers.learner.critic import Critic
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.reference import ReferenceModel
from envgym_trainers.learner.reward_model import RewardModel
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import AuxiliaryName, Member, Objective
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.truncation import masked

__all__ = ["Learner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cohort:
    """The trajectories of one role in one group, which share a baseline, with the samples of each."""

    trajectories: Sequence[Trajectory]
    samples: Sequence[Sequence[Sample]]


class Learner:
    """Applies an objective to groups.

    Args:
        recipe: the run's recipe.
        objective: defines units and loss.
        language_model: the model to train, in place.

    Raises:
        UserError: an auxiliary model that the objective needs cannot be loaded.
    """

    def __init__(self, recipe: ReinforcementRecipe, objective: Objective, language_model: LanguageModel) -> None:
        self._recipe = recipe
        self._objective = objective
        self._needs = objective.needs()
        self._true_reward = recipe.reward == RewardSettings()
        self._language_model = language_model
        self._threads = torch.get_num_threads()
        makers: Mapping[AuxiliaryName, Callable[[], Auxiliary]] = {
            "reference": lambda: ReferenceModel(recipe, language_model),
            "critic": lambda: Critic(recipe),
            "reward": lambda: RewardModel(recipe),
        }
        self._auxiliary = AuxiliaryModels({name: makers[name]() for name in sorted(self._needs.auxiliary)})
        self.updater = Updater(
            language_model,
            recipe.optimizer,
            temperature=recipe.sampling.temperature,
            total_updates=recipe.steps * recipe.updates * recipe.epochs,
            auxiliary=self._auxiliary,
        )

    def learn(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Take the updates of one step.

        Returns:
            metrics, averaged over the updates (the largest of a ``_max``); only ``samples`` and
            ``samples_with_signal``, both 0, if there was nothing to train on.

        Raises:
            EngineMismatch: the engine's log-probs are not the trainer's.
            NotFinite: one update after another came to numbers that are not finite.
        """
        torch.set_num_threads(self._threads)
        units = [unit for cohort in self._cohorts(groups) for unit in self._units(cohort)]
        units = self._objective.prepare(units)
        if not units:
            return {"samples": 0.0, "samples_with_signal": 0.0}
        rng = random.Random(derive_seed("minibatches", self._recipe.seed, step))
        count = min(self._recipe.updates, len(units))
        rows: list[dict[str, float]] = []
        for _ in range(self._recipe.epochs):
            rng.shuffle(units)
            rows += [self._update(units[i::count], step - 1) for i in range(count)]
        mean = {
            name: max(row[name] for row in rows) if name.endswith("_max") else fmean(row[name] for row in rows)
            for name in rows[0]
        }
        versions = [sample.version for unit in units for sample in unit]
        return {
            **mean,
            "samples": float(len(versions)),
            "samples_with_signal": float(sum(s.has_signal for unit in units for s in unit)),
            "staleness_max": float(step - 1 - min(versions)),
        }

    def _update(self, units: Sequence[Unit], version: int) -> dict[str, float]:
        return self.updater.update(
            units, self._objective.loss, version=version, mismatch_limit=self._recipe.mismatch_limit
        )

    def _cohorts(self, groups: Sequence[Group]) -> Iterator[_Cohort]:
        """Yield the cohorts of ``groups``. All samples are annotated together, in full micro-batches."""
        named = [
            (f"{group.env}/{group.task.id}/{role}", trajectories)
            for group in groups
            for role, trajectories in group.by_role().items()
        ]
        made = [[self._samples(t, name) for t in trajectories] for name, trajectories in named]
        annotated = iter(self._annotated([s for cohort in made for own in cohort for s in own]))
        for (_, trajectories), cohort in zip(named, made, strict=True):
            samples = [[next(annotated) for _ in own] for own in cohort]
            yield _Cohort(trajectories=trajectories, samples=samples)

    def _samples(self, trajectory: Trajectory, name: str) -> list[Sample]:
        if trajectory.failed or masked(self._recipe.truncated, trajectory):
            return []
        samples = samples_of(trajectory, name)
        if self._true_reward:
            return samples
        # Controls and noise replace the whole reward: the rewards of turns would leak the true one.
        return [replace(sample, turn_rewards=None) for sample in samples]

    def _annotated(self, samples: list[Sample]) -> list[Sample]:
        """Fill the columns of the auxiliary models and, with several updates per step, of the old policy.

        With one update in all the old policy is the current one, and needs no forward pass of its own.
        """
        samples = self._auxiliary.annotate(samples)
        if self._recipe.updates * self._recipe.epochs == 1:
            return samples

        def run(batch: Batch) -> Tensor:
            model = self._language_model.model
            return token_logprobs(model, batch.to(model.device), self._recipe.sampling.temperature)[0]

        return annotate_tokens(
            samples,
            "old_logprobs",
            run,
            pad_id=self._language_model.pad_id,
            max_tokens=self._recipe.optimizer.micro_batch_tokens,
        )

    def _units(self, cohort: _Cohort) -> list[Unit]:
        recipe = self._recipe
        scores = [controlled(recipe.reward, recipe.truncated, t)[0] for t in cohort.trajectories]
        if self._true_reward:  # a reward model must not put back what a control took away
            scores = self._auxiliary.rescore(cohort.samples, scores)
        lengths = torch.tensor([t.sampled_tokens for t in cohort.trajectories])
        rewards = self._objective.shape(torch.tensor(scores, dtype=torch.float64), lengths)
        return self._objective.units(
            [
                Member(trajectory=trajectory, reward=reward, samples=() if math.isnan(reward) else tuple(samples))
                for trajectory, reward, samples in zip(
                    cohort.trajectories, rewards.tolist(), cohort.samples, strict=True
                )
            ]
        )
