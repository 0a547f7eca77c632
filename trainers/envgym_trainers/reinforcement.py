"""The reinforcement-learning stage: collect groups, weigh them, update, again."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

from envgym.collect import Group
from envgym.config import validate_settings
from envgym.data import from_json, to_json
from envgym.errors import RecipeError
from envgym.mix import Mix
from envgym.progress import Reporter
from envgym.record import RunFolder
from envgym.registry import objectives
from envgym_trainers.checkpoint import latest_checkpoint, save_checkpoint
from envgym_trainers.collection import GroupSource, StepGroups
from envgym_trainers.learning import Learner
from envgym_trainers.measurement import measure, write_summary
from envgym_trainers.models import load_model
from envgym_trainers.objectives import Objective
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stopping import StopRequest
from envgym_trainers.workbench import Workbench, open_site, open_workbench

__all__ = ["ReinforcementStage", "make_objective"]


def make_objective(values: dict[str, Any]) -> Objective:
    """The objective that a recipe's ``[objective]`` table describes.

    Raises:
        UserError: no such objective, or a setting that it does not have.
    """
    settings = dict(values)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"objective: needs a name; allowed: {', '.join(objectives.plugins())}")
    kind: type[Objective] = objectives.load(name)
    return validate_settings(kind, settings, f"objective {name!r}")


class ReinforcementStage:
    """Trains a policy on a mix of environments, and measures it on held-out tasks before and after."""

    Recipe: ClassVar[type[ReinforcementRecipe]] = ReinforcementRecipe

    def __init__(self, recipe: ReinforcementRecipe, folder: RunFolder, reporter: Reporter) -> None:
        self._recipe = recipe
        self._folder = folder
        self._reporter = reporter
        self._objective = make_objective(recipe.objective)
        self._step = 0
        self._seconds = 0.0

    async def run(self) -> dict[str, Any] | None:
        """Run to the end, or until asked to stop; goes on from the newest checkpoint in the folder.

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
                open_site(recipe, self._reporter) as site,
                open_workbench(recipe, site, load_model(config)) as bench,
            ):
                sizes = {label: len(bench.collector.tasks(label, "train")) for label in bench.labels}
                source = GroupSource(recipe, self._objective, bench, Mix(site.entries, sizes, recipe.seed))
                learner = Learner(recipe, self._objective, bench.language_model)
                if checkpoint:
                    self._restore(checkpoint.state(), source, learner, checkpoint.tensors())
                    bench.engine.version = self._step
                self._folder.forget_after(self._step)
                before = await measure(bench, self._folder, "before", self._reporter)
                await self._train(bench, source, learner, stop)
                if not self._finished:
                    return None
                after = await measure(bench, self._folder, "after", self._reporter)
                return write_summary(self._folder, bench, before, after, self._step, self._seconds)

    @property
    def _finished(self) -> bool:
        budget = self._recipe.max_minutes * 60
        return self._step >= self._recipe.steps or (budget > 0 and self._seconds >= budget)

    async def _train(self, bench: Workbench, source: GroupSource, learner: Learner, stop: StopRequest) -> None:
        self._reporter.begin("step", self._recipe.steps, self._step)
        while not self._finished and not stop.requested:
            started = time.monotonic()
            tokens = bench.engine.tokens
            collected = await source.collect()
            bench.engine.check()
            sampled = time.monotonic()
            metrics = await asyncio.to_thread(learner.learn, collected.groups, self._step + 1)
            bench.engine.weights_changed()
            self._step += 1
            now = time.monotonic()
            self._seconds += now - started
            timing = {
                "seconds": now - started,
                "sampling_seconds": sampled - started,
                "learning_seconds": now - sampled,
                "sampled_tokens": bench.engine.tokens - tokens,
                "tokens_per_second": (bench.engine.tokens - tokens) / (sampled - started),
            }
            self._record(collected, metrics, timing)
            if self._step % self._recipe.checkpoint_every == 0 or self._finished or stop.requested:
                await asyncio.to_thread(self._save, bench, source, learner)
        self._reporter.end()
        if self._finished and self._step < self._recipe.steps:
            self._reporter.say(
                f"the budget of {self._recipe.max_minutes:g} minutes ended training at step {self._step}"
            )
        elif not self._finished:
            self._reporter.say(
                f"stopped after step {self._step}; go on with: envgym train --resume {self._folder.path}"
            )

    def _record(self, collected: StepGroups, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self._folder.append_trajectories(self._step, collected.trajectories)
        self._folder.append_metrics({"step": self._step, **collected.metrics(), **metrics, **timing})
        rewards = " ".join(f"{label} {value:.2f}" for label, value in collected.mean_rewards().items())
        note = f"{rewards} | {timing['tokens_per_second']:,.0f} tokens/s"
        self._reporter.advance(note, line=True)

    def _save(self, bench: Workbench, source: GroupSource, learner: Learner) -> None:
        state = {
            "step": self._step,
            "seconds": self._seconds,
            "mix": source.mix.state(),
            "carried": {label: [to_json(g) for g in groups] for label, groups in source.carried.items()},
        }
        save_checkpoint(self._folder.checkpoints, self._step, bench.language_model, learner.updater.state(), state)

    def _restore(
        self, state: dict[str, Any], source: GroupSource, learner: Learner, tensors: dict[str, Any]
    ) -> None:
        self._step, self._seconds = state["step"], state["seconds"]
        source.mix.restore(state["mix"])
        source.carried |= {
            label: [from_json(Group, text) for text in groups] for label, groups in state["carried"].items()
        }
        learner.updater.restore(tensors)
