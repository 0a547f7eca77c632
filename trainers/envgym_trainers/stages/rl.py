"""The reinforcement-learning stage: collect groups, compute advantages, update, repeat."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from envgym.errors import RecipeError
from envgym.records import from_json, to_json
from envgym.rollout.collector import Group
from envgym.rollout.mix import Mix
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.stage import Stage
from envgym_trainers.learner.learner import Learner
from envgym_trainers.models.checkpoint import latest_checkpoint, save_checkpoint
from envgym_trainers.models.load import load_model
from envgym_trainers.objectives import Objective
from envgym_trainers.objectives.base import objectives
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.groups import GroupSource, StepGroups
from envgym_trainers.stages.measurement import measure, write_summary
from envgym_trainers.stages.setup import TrainingSetup, open_environments, open_setup
from envgym_trainers.stages.stopping import StopRequest

__all__ = ["ReinforcementStage", "make_objective"]


def make_objective(values: dict[str, Any]) -> Objective:
    """Make the objective that a recipe's ``[objective]`` table describes.

    Raises:
        UserError: no such objective, or a setting that it does not have.
    """
    settings = dict(values)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"objective: needs a name; allowed: {', '.join(objectives.plugins())}")
    return objectives.make(name, settings)


class ReinforcementStage(Stage):
    """Trains a policy on a mix of environments, and measures it on held-out tasks before and after."""

    class Config(ReinforcementRecipe):
        """The recipe."""

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._objective = make_objective(self.config.objective)

    async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
        """Train, and measure before and after; see ``Stage.run``."""
        return await _Run(self.config, self._objective, folder, reporter).run()


class _Run:
    """One run of the stage, with its step and its clock."""

    def __init__(
        self, recipe: ReinforcementRecipe, objective: Objective, folder: RunFolder, reporter: Reporter
    ) -> None:
        self._recipe = recipe
        self._objective = objective
        self._folder = folder
        self._reporter = reporter
        self._step = 0
        self._seconds = 0.0
        self._named: set[str] = set()
        """Functions that were said to block the event loop."""

    async def run(self) -> dict[str, Any] | None:
        """Run to the end or until asked to stop, resuming from the newest checkpoint in the folder.

        Returns:
            the summary, or ``None`` if the run was stopped before its end.

        Raises:
            UserError: the recipe cannot be carried out here.
            TooManyFailures: more episodes failed than the recipe allows.
            PolicyError: the engine stopped.
        """
        recipe = self._recipe
        checkpoint = latest_checkpoint(self._folder.checkpoints)
        config = recipe.model
        if checkpoint and not config.lora_rank:
            config = config.model_copy(update={"path": str(checkpoint.model)})
        with StopRequest() as stop:
            async with (
                open_environments(recipe, self._reporter) as environments,
                open_setup(recipe, environments, load_model(config)) as setup,
            ):
                sizes = {label: len(setup.collector.tasks(label, "train")) for label in setup.labels}
                source = GroupSource(recipe, self._objective, setup, Mix(environments.entries, sizes, recipe.seed))
                learner = Learner(recipe, self._objective, setup.language_model)
                if checkpoint:
                    self._restore(checkpoint.state(), source, learner, checkpoint.tensors())
                    await setup.engine.update_weights(setup.language_model, self._step)
                self._folder.forget_after(self._step)
                before = await measure(setup, self._folder, "before", self._reporter)
                await self._train(setup, source, learner, stop)
                if not self._finished:
                    return None
                after = await measure(setup, self._folder, "after", self._reporter)
                return write_summary(self._folder, setup, before, after, self._step, self._seconds)

    @property
    def _finished(self) -> bool:
        budget = self._recipe.max_minutes * 60
        return self._step >= self._recipe.steps or (budget > 0 and self._seconds >= budget)

    async def _train(self, setup: TrainingSetup, source: GroupSource, learner: Learner, stop: StopRequest) -> None:
        self._reporter.begin("step", self._recipe.steps, self._step)
        while not self._finished and not stop.requested:
            started = time.monotonic()
            earlier = setup.engine.statistics()
            collected = await source.collect()
            setup.engine.check()
            sampled = time.monotonic()
            metrics = await asyncio.to_thread(learner.learn, collected.groups, self._step + 1)
            self._step += 1
            await setup.engine.update_weights(setup.language_model, self._step)
            now = time.monotonic()
            self._seconds += now - started
            work = setup.engine.statistics()
            tokens = work.sampled_tokens - earlier.sampled_tokens
            timing = {
                "seconds": now - started,
                "sampling_seconds": sampled - started,
                "learning_seconds": now - sampled,
                "sampled_tokens": tokens,
                "tokens_per_second": tokens / (sampled - started),
                "completion_tokens_mean": tokens / max(1, work.completions - earlier.completions),
            }
            self._record(collected, metrics, timing)
            if self._step % self._recipe.checkpoint_every == 0 or self._finished or stop.requested:
                await asyncio.to_thread(self._save, setup, source, learner)
        self._reporter.end()
        if self._finished and self._step < self._recipe.steps:
            self._reporter.say(
                f"the budget of {self._recipe.max_minutes:g} minutes ended training at step {self._step}"
            )
        elif not self._finished:
            self._reporter.say(
                f"stopped after step {self._step}; resume with: envgym train --resume {self._folder.path}"
            )

    def _record(self, collected: StepGroups, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self._folder.append_trajectories(self._step, collected.trajectories)
        self._folder.append_metrics({"step": self._step, **collected.metrics(), **metrics, **timing})
        rewards = " ".join(f"{label} {value:.2f}" for label, value in collected.mean_rewards().items())
        for who, seconds in collected.blockers.items():
            function = who.partition(" (")[0]
            if function not in self._named:
                self._named.add(function)
                self._reporter.say(
                    f"the event loop, which all episodes share, was blocked for {seconds:.1f} s by {who}; await "
                    "there, or use asyncio.to_thread. Deadlines were extended by as much; said once"
                )
        note = f"{rewards} | {timing['tokens_per_second']:,.0f} tokens/s"
        self._reporter.advance(note, line=True)

    def _save(self, setup: TrainingSetup, source: GroupSource, learner: Learner) -> None:
        state = {
            "step": self._step,
            "seconds": self._seconds,
            "mix": source.mix.state(),
            "carried": {label: [to_json(g) for g in groups] for label, groups in source.carried.items()},
        }
        save_checkpoint(self._folder.checkpoints, self._step, setup.language_model, learner.updater.state(), state)

    def _restore(
        self, state: dict[str, Any], source: GroupSource, learner: Learner, tensors: dict[str, Any]
    ) -> None:
        self._step, self._seconds = state["step"], state["seconds"]
        source.mix.restore(state["mix"])
        source.carried |= {
            label: [from_json(Group, text) for text in groups] for label, groups in state["carried"].items()
        }
        learner.updater.restore(tensors)
