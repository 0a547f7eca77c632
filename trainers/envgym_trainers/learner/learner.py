"""Turn groups into updates: rewards, samples, units, optimizer steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from envgym.records import Trajectory
from envgym.rollout.collector import Group
from envgym.seeding import derive_seed
from envgym_trainers.batch import Sample, Unit
from envgym_trainers.controls import RewardSettings, controlled
from envgym_trainers.distributed.team import ALONE, Team
from envgym_trainers.learner.auxiliary import Auxiliary, AuxiliaryModels
from envgym_trainers.learner.critic import Critic
from envgym_trainers.learner.faults import broken_column, some
from envgym_trainers.learner.reference import ReferenceModel
from envgym_trainers.learner.reward_model import RewardModel
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.learner.scorer import scorer_of
from envgym_trainers.learner.staleness import staleness
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import AuxiliaryName, Member, Objective
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.truncation import masked

__all__ = ["Learner", "make_updater"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cohort:
    """The trajectories of one role in one group, which share a baseline, with the samples of each."""

    name: str
    trajectories: Sequence[Trajectory]
    samples: Sequence[Sequence[Sample]]


def make_updater(
    recipe: ReinforcementRecipe, objective: Objective, language_model: LanguageModel | None, team: Team
) -> tuple[Updater, AuxiliaryModels]:
    """Return the updater of a run and the models beside the policy, in every process of a team.

    Args:
        recipe: the run's recipe.
        objective: says which models it needs.
        language_model: the model to train; ``None`` in all processes but the leader.
        team: the processes.

    Raises:
        UserError: an auxiliary model that the objective needs cannot be loaded.
    """
    policy = scorer_of(language_model, team, recipe.model.dtype)
    needs = objective.needs()
    makers: Mapping[AuxiliaryName, Callable[[], Auxiliary]] = {
        "reference": lambda: ReferenceModel(recipe, policy, team),
        "critic": lambda: Critic(recipe, team),
        "reward": lambda: RewardModel(recipe) if team.leads else Auxiliary(),  # the leader alone scores
    }
    auxiliary = AuxiliaryModels({name: makers[name]() for name in sorted(needs.auxiliary)})
    updater = Updater(
        policy,
        recipe.optimizer,
        temperature=recipe.sampling.temperature,
        total_updates=recipe.steps * recipe.updates * recipe.epochs,
        auxiliary=auxiliary,
        old_logprobs=recipe.updates * recipe.epochs > 1 or needs.old_logprobs,
        team=team,
    )
    return updater, auxiliary


class Learner:
    """Applies an objective to groups.

    Args:
        recipe: the run's recipe.
        objective: defines units and loss.
        language_model: the model to train, in place.
        team: the processes over which it is sharded; ``language_model`` is then the leader's whole copy.

    Raises:
        UserError: an auxiliary model that the objective needs cannot be loaded.
    """

    def __init__(
        self,
        recipe: ReinforcementRecipe,
        objective: Objective,
        language_model: LanguageModel,
        team: Team = ALONE,
    ) -> None:
        self._recipe = recipe
        self._objective = objective
        self._needs = objective.needs()
        self._true_reward = recipe.reward == RewardSettings()
        self._language_model = language_model
        self._threads = team.threads(torch.get_num_threads())
        team.hand_out("begin", recipe=recipe.model_dump(mode="json"))
        self.updater, self._auxiliary = make_updater(recipe, objective, language_model, team)
        self.faults: list[str] = []
        """What was not finite in the last step: a line for the trajectories that were left out, and one for each
        update that was skipped."""
        self._left_out: list[str] = []

    def learn(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Take the updates of one step.

        Returns:
            metrics: means over the updates that were taken (the largest of a ``_max``); ``skipped``, the number
            of the others; ``not_finite``, the trajectories that were left out. Of these only ``samples``,
            ``samples_with_signal``, both 0, and ``not_finite`` if there was nothing to train on.

        Raises:
            ValueError: a group has no trajectories.
            EngineMismatch: the engine's log-probs are not the trainer's.
            NotFinite: one update after another came to numbers that are not finite, or a weight did.
        """
        for group in groups:
            if not group.trajectories:
                raise ValueError(f"the group of task {group.task.id!r} of {group.env!r} has no trajectories")
        torch.set_num_threads(self._threads)
        self.faults, self._left_out = [], []
        units = [unit for cohort in self._cohorts(groups) for unit in self._units(cohort)]
        units = self._objective.prepare(units)
        counts = {"not_finite": float(len(self._left_out))}
        if self._left_out:
            self.faults.append(f"left out, not finite: {some(self._left_out)}")
        if not units:
            if self._left_out:
                self.updater.note(some(self._left_out))
            return {"samples": 0.0, "samples_with_signal": 0.0, **counts}
        rng = random.Random(derive_seed("minibatches", self._recipe.seed, step))
        count = min(self._recipe.updates, len(units))
        rows: list[dict[str, float]] = []
        for _ in range(self._recipe.epochs):
            rng.shuffle(units)
            rows += [self._update(units[i::count], step - 1) for i in range(count)]
        self.updater.publish(self._language_model)
        samples = [sample for unit in units for sample in unit]
        return {
            **_merged(rows),
            **counts,
            **staleness(samples, step - 1),
            "samples": float(len(samples)),
            "samples_with_signal": float(sum(sample.has_signal for sample in samples)),
        }

    def _update(self, units: Sequence[Unit], version: int) -> dict[str, float]:
        row = self.updater.update(
            units, self._objective.loss, version=version, mismatch_limit=self._recipe.mismatch_limit
        )
        if self.updater.fault:
            self.faults.append(f"an update was skipped, not finite: {self.updater.fault}")
        return row

    def _cohorts(self, groups: Sequence[Group]) -> Iterator[_Cohort]:
        """Yield the cohorts of ``groups``. All samples are annotated together, in full micro-batches."""
        named = [
            (f"{group.env}/{group.task.id}/{role}", trajectories)
            for group in groups
            for role, trajectories in group.by_role().items()
        ]
        made = [[self._samples(t, name) for t in trajectories] for name, trajectories in named]
        annotated = iter(self.updater.annotate([s for cohort in made for own in cohort for s in own]))
        for (name, trajectories), cohort in zip(named, made, strict=True):
            samples = [[next(annotated) for _ in own] for own in cohort]
            yield _Cohort(name=name.rstrip("/"), trajectories=trajectories, samples=samples)

    def _samples(self, trajectory: Trajectory, name: str) -> list[Sample]:
        if trajectory.failed or masked(self._recipe.truncated, trajectory):
            return []
        samples = samples_of(trajectory, name)
        if self._true_reward:
            return samples
        # Controls and noise replace the whole reward: the rewards of turns would leak the true one.
        return [replace(sample, turn_rewards=None) for sample in samples]

    def _units(self, cohort: _Cohort) -> list[Unit]:
        lengths = torch.tensor([t.sampled_tokens for t in cohort.trajectories])
        scores = torch.tensor(self._scores(cohort), dtype=torch.float64)
        rewards = self._objective.shape(scores, lengths)
        return self._objective.units(
            [
                Member(trajectory=trajectory, reward=reward, samples=() if math.isnan(reward) else tuple(samples))
                for trajectory, reward, samples in zip(
                    cohort.trajectories, rewards.tolist(), cohort.samples, strict=True
                )
            ]
        )

    def _scores(self, cohort: _Cohort) -> list[float]:
        """Return the scores, NaN where missing, as a member is of whom anything is not finite; it is named."""
        recipe = self._recipe
        scores = given = [controlled(recipe.reward, recipe.truncated, t)[0] for t in cohort.trajectories]
        if self._true_reward:  # a reward model must not put back what a control took away
            scores = self._auxiliary.rescore(cohort.samples, given)
        sound: list[float] = []
        for trajectory, before, score, samples in zip(
            cohort.trajectories, given, scores, cohort.samples, strict=True
        ):
            fault = self._fault(trajectory, before, score, samples)
            if fault:
                self._left_out.append(f"{cohort.name} ({fault})")
            sound.append(math.nan if fault else score)
        return sound

    def _fault(self, trajectory: Trajectory, given: float, score: float, samples: Sequence[Sample]) -> str:
        """Return what is not finite of a member; ``""`` if nothing is, or if it is missing anyway.

        Args:
            trajectory: the member.
            given: its reward.
            score: the same after the reward model.
            samples: its samples, annotated.
        """
        silent = self._recipe.reward.control != "none" and math.isnan(given)  # the control has no reward for it
        out = trajectory.failed or trajectory.score is None or masked(self._recipe.truncated, trajectory)
        if out or silent:
            return ""
        if not _fits(score):
            return "score of the reward model" if _fits(given) else "reward"
        return broken_column(samples)


def _fits(value: float) -> bool:
    """Return true for a finite number that still is one in float32, as batches are."""
    return abs(value) <= torch.finfo(torch.float32).max


def _merged(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Merge the metrics of a step's updates; figures of those that were skipped would spoil the means."""
    taken = [row for row in rows if not row.get("skipped")] or rows
    merged = {
        name: max(row[name] for row in taken) if name.endswith("_max") else fmean(row[name] for row in taken)
        for name in taken[0]
    }
    return {**merged, "skipped": float(sum(row.get("skipped", 0.0) for row in rows))}
