"""The reinforcement-learning stage: collect groups, compute advantages, update, repeat."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from envgym.errors import RecipeError
from envgym.rollout.collector import Group
from envgym.rollout.mix import Mix
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.simulation import SimulatedLoad
from envgym.runs.stage import Stage
from envgym.runs.table import rewards_text
from envgym_trainers.distributed.team import Team
from envgym_trainers.learner.learner import Learner, make_updater
from envgym_trainers.learner.updater import Loss, Updater
from envgym_trainers.models.checkpoint import Checkpoint, keep_best, latest_checkpoint, restoring, save_checkpoint
from envgym_trainers.models.load import load_model
from envgym_trainers.objectives import Objective
from envgym_trainers.objectives.base import objectives
from envgym_trainers.objectives.ops.dynamic_sampling import DynamicSampling
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.asynchronous import make_source
from envgym_trainers.stages.control_runs import ControlRuns, chosen_controls
from envgym_trainers.stages.doubts import no_signal, uncorrected
from envgym_trainers.stages.exhaustion import Exhaustion
from envgym_trainers.stages.groups import GroupPlayer
from envgym_trainers.stages.measurement import Scores, measure, overall, write_summary
from envgym_trainers.stages.probe import probe
from envgym_trainers.stages.setup import TrainingSetup, check_setup, open_environments, open_setup
from envgym_trainers.stages.simulation import simulate
from envgym_trainers.stages.step_groups import StepGroups
from envgym_trainers.stages.steps import Phase, Source, Steps
from envgym_trainers.stages.stopping import StopRequest
from envgym_trainers.stages.team_up import follow_leader, teamed_up
from envgym_trainers.stages.timing import StepWork, status_of

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


_MISMATCH_WARNING = 0.3
"""Share of ``mismatch_limit`` from which the mismatch with the engine is warned of."""
_WARN_EVERY = 10
"""Steps between two warnings of one kind."""


class ReinforcementStage(Stage):
    """Trains a policy on a mix of environments, and measures it on held-out tasks before and after."""

    class Config(ReinforcementRecipe):
        """The recipe."""

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._objective = make_objective(self.config.objective)

    def check(self) -> None:
        """Look for what the recipe names; see ``Stage.check``."""
        check_setup(self.config)

    async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
        """Train, and measure before and after; see ``Stage.run``."""
        return await _Run(self.config, self._objective, folder, reporter).run()

    def follow(self) -> None:
        """Learn as the first process says; see ``Stage.follow``."""

        def begin(values: dict[str, Any], team: Team) -> tuple[Updater, Loss]:
            recipe = type(self.config)(**values["recipe"])
            return make_updater(recipe, self._objective, None, team)[0], self._objective.loss

        follow_leader(self.config, begin)

    async def simulate(self, load: SimulatedLoad, reporter: Reporter) -> dict[str, Any]:
        """Run the recipe's loop without a model; see ``Stage.simulate``."""
        return await simulate(self.config, self._objective, load, reporter)

    def controls(self, names: Sequence[str]) -> list[str]:
        """Return the controls to run; see ``Stage.controls``."""
        return chosen_controls(self.config, names)

    async def run_controls(
        self, folder: RunFolder, reporter: Reporter, names: Sequence[str]
    ) -> dict[str, Any] | None:
        """Train under each control, and compare; see ``Stage.run_controls``."""

        async def run(recipe: ReinforcementRecipe, place: RunFolder) -> dict[str, Any] | None:
            return await type(self)(**recipe.model_dump()).run(place, reporter)

        return await ControlRuns(self.config, folder, run, reporter).compare(names)


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
        self._sampled_tokens = 0
        self._warned: dict[str, int] = {}
        self._exhaustion = Exhaustion((objective.needs().dynamic_sampling or DynamicSampling()).patience)
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
        checkpoint = latest_checkpoint(self._folder.checkpoints, self._reporter.say)
        config = recipe.model
        if checkpoint:
            checkpoint.check(recipe.identity())
        if checkpoint and not config.lora_rank:
            config = config.model_copy(update={"path": str(checkpoint.model)})
        self._reporter.say(f"loading {config.path}")
        with StopRequest(self._reporter.say) as stop:
            async with (
                teamed_up(config.device) as team,
                open_environments(recipe, self._reporter) as environments,
                open_setup(
                    recipe,
                    environments,
                    load_model(config, recipe.sampling.concurrency),
                    asynchronous=self._asynchronous,
                ) as setup,
            ):
                setup.warnings = [*setup.warnings, *uncorrected(recipe, self._objective)]
                sizes = {label: len(setup.collector.tasks(label, "train")) for label in setup.labels}
                mix = Mix(environments.entries, sizes, recipe.seed)
                player = GroupPlayer(recipe, self._objective, setup.collector, mix)
                learner = Learner(recipe, self._objective, setup.language_model, team)
                source = self._source(player, checkpoint, learner)
                if checkpoint:
                    await setup.engine.update_weights(setup.language_model, self._step)
                self._folder.forget_after(self._step)
                for line in self._folder.damage.lines():  # such rows are gone now
                    self._reporter.say(f"warning: {line}")
                self._sampled_tokens = sum(int(row.get("sampled_tokens") or 0) for row in self._folder.metrics())
                self._reporter.say(setup.limits)
                for warning in setup.warnings:
                    self._reporter.say(f"warning: {warning}")
                before = await measure(setup, self._folder, "before", self._reporter)
                async with source:
                    await self._train(setup, source, learner, stop)
                if not self._finished:
                    return None
                after = await self._evaluate(setup, "after")
                return write_summary(
                    self._folder,
                    setup,
                    before,
                    after,
                    steps=self._step,
                    seconds=self._seconds,
                    ended=self._ended,
                )

    @property
    def _finished(self) -> bool:
        return bool(self._ended)

    @property
    def _ended(self) -> str:
        """Reason why training is over; ``""`` while it is not."""
        budget = self._recipe.max_minutes * 60
        if self._step >= self._recipe.steps:
            return "all steps done"
        if self._exhaustion.reason:
            return self._exhaustion.reason
        if budget > 0 and self._seconds >= budget:
            return f"the budget of {self._recipe.max_minutes:g} minutes"
        if 0 < self._recipe.max_sampled_tokens <= self._sampled_tokens:
            return f"the budget of {self._recipe.max_sampled_tokens:,} sampled tokens"
        return ""

    @property
    def _asynchronous(self) -> bool:
        return self._recipe.asynchronous.max_staleness > 0

    def _source(self, player: GroupPlayer, checkpoint: Checkpoint | None, learner: Learner) -> Source:
        """Return the source of groups; run, source and learner go on from the checkpoint, if there is one."""
        if checkpoint is None:
            return make_source(self._recipe, player)
        with restoring(checkpoint):
            state = checkpoint.state()
            self._step, self._seconds = state["step"], state["seconds"]
            self._exhaustion.restore(state["exhaustion"])
            source = make_source(self._recipe, player, self._step)
            source.restore(state)
            learner.updater.resume(checkpoint)
        return source

    async def _train(self, setup: TrainingSetup, source: Source, learner: Learner, stop: StopRequest) -> None:
        unchecked: list[Group] = []
        """Groups of a step in which there was nothing to compare the engine by."""

        async def learn(groups: Sequence[Group], step: int) -> dict[str, float]:
            setup.engine.check()
            if not self._asynchronous:
                await setup.engine.rest()  # the learner needs the memory
            metrics = await asyncio.to_thread(learner.learn, groups, step)
            unchecked[:] = groups if self._asynchronous and not metrics.get("engine_compared") else ()
            for fault in learner.faults:
                self._reporter.say(f"warning: step {step}: {fault}")
            return metrics

        async def publish(version: int) -> None:
            await setup.engine.update_weights(setup.language_model, version)
            if unchecked:
                await probe(setup, self._recipe, unchecked, version)

        def show(phase: Phase) -> AbstractContextManager[None]:
            episodes = self._recipe.groups * self._recipe.group_size
            return self._reporter.during(status_of(phase, setup, source, episodes))

        steps = Steps(source, learn, publish, done=self._step, show=show)
        self._reporter.begin("step", self._recipe.steps, self._step)
        while not self._finished and not stop.requested:
            stop.doing = f"step {self._step + 1}"
            work = StepWork(setup.engine, source)
            tools = setup.environments.services.tools
            called = Counter(tools.counts)
            step = await steps.take()
            self._step = step.number
            if not step.metrics["not_finite"]:  # a fault, whose end is an error
                fates = sum(step.collected.counters.values(), Counter())
                self._exhaustion.note(fates, learnt=step.metrics["samples_with_signal"] > 0)
            timing = work.done(step)
            timing |= {f"tools/{name}": float(count) for name, count in sorted((tools.counts - called).items())}
            self._seconds += timing["seconds"]
            self._sampled_tokens += int(timing["sampled_tokens"])
            self._record(step.collected, step.metrics, timing)
            # Before the checkpoint: a run that is killed in between measures this step again.
            every = self._recipe.evaluate.every
            if every and self._step % every == 0 and not self._finished:
                await self._evaluate(setup, f"step-{self._step:06d}")
                self._reporter.begin("step", self._recipe.steps, self._step)
            if self._step % self._recipe.checkpoint_every == 0 or self._finished or stop.requested:
                await asyncio.to_thread(self._save, setup, learner, source.snapshot())
        self._reporter.end()
        if self._finished and (dropped := setup.collector.in_flight):
            self._reporter.say(f"{dropped} episodes under way were dropped at the end of training")
        if self._finished and self._step < self._recipe.steps:
            self._reporter.say(f"training ended at step {self._step}: {self._ended}")
        elif not self._finished:
            self._reporter.say(
                f"stopped after step {self._step}; resume with: envgym train --resume {self._folder.path}"
            )

    async def _evaluate(self, setup: TrainingSetup, when: str) -> Scores:
        """Measure; where the recipe measures in training, keep the weights if they are the best so far."""
        scores = await measure(setup, self._folder, when, self._reporter)
        reward = overall(scores["greedy"])
        if self._recipe.evaluate.every and keep_best(self._folder, self._step, reward, setup.language_model):
            self._reporter.say(f"best so far, kept in {self._folder.checkpoints / 'best'}")
        return scores

    def _record(self, collected: StepGroups, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self._folder.append_trajectories(self._step, collected.trajectories)
        row = {"step": self._step, **collected.metrics(), **metrics, **timing}
        self._folder.append_metrics(row)
        rewards = rewards_text(collected.mean_rewards(), collected.endings())
        self._warn(row, list(collected.counters))
        for who, seconds in collected.blockers.items():
            function = who.partition(" (")[0]
            if function not in self._named:
                self._named.add(function)
                self._reporter.say(
                    f"the event loop, which all episodes share, was blocked for {seconds:.1f} s by {who}; await "
                    "there, or use asyncio.to_thread. Deadlines were extended by as much; said once"
                )
        note = f"{rewards} | {timing['tokens_per_second']:,.0f} tokens/s"
        if self._asynchronous and "staleness_mean" in metrics:
            note += f" | staleness {metrics['staleness_mean']:.1f}, {metrics['staleness_max']:.0f} at most"
        self._reporter.advance(note, line=True, limit=self._budget_left())

    def _budget_left(self) -> float:
        """Estimate the seconds until a budget ends training; infinity without one."""
        recipe, left = self._recipe, [math.inf]
        if recipe.max_minutes:
            left.append(recipe.max_minutes * 60 - self._seconds)
        if recipe.max_sampled_tokens and self._sampled_tokens:
            each = self._seconds / self._sampled_tokens
            left.append((recipe.max_sampled_tokens - self._sampled_tokens) * each)
        return max(0.0, min(left))

    def _warn(self, row: dict[str, Any], labels: list[str]) -> None:
        """Say which environments taught nothing in this step, once in a few steps."""
        for label in labels:
            why = no_signal(row, label)
            if why and self._step >= self._warned.get(label, -_WARN_EVERY) + _WARN_EVERY:
                self._warned[label] = self._step
                self._reporter.say(f"warning: step {self._step}: {label}: no group had a signal: {why}")
        if row.get("engine_gap", 0.0) > _MISMATCH_WARNING * self._recipe.mismatch_limit:
            self._reporter.say(
                f"warning: step {self._step}: the engine's log-probs are {row['engine_gap']:.3f} nats off the "
                f"trainer's on average; the run stops at mismatch_limit = {self._recipe.mismatch_limit:g}"
            )

    def _save(self, setup: TrainingSetup, learner: Learner, write: Callable[[], dict[str, Any]]) -> None:
        state = {
            "identity": self._recipe.identity(),
            "step": self._step,
            "seconds": self._seconds,
            "exhaustion": self._exhaustion.state(),
            **write(),
        }
        updater = learner.updater
        save_checkpoint(
            self._folder.checkpoints,
            self._step,
            setup.language_model,
            updater.state(),
            state,
            write_shards=updater.write_shards,
        )
