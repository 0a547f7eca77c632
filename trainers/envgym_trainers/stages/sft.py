"""The supervised stage: imitate the environments' scripted experts, and beginners among them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from envgym.errors import DataError
from envgym.policies.scripted import Expert, Novice
from envgym.records import Task, Trajectory, TurnTokens
from envgym.rollout.collector import Collector
from envgym.rollout.mix import Mix
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.stage import Stage
from envgym.seeding import derive_rng, derive_seed
from envgym_trainers.batch import Batch, Outputs, Sample, as_units
from envgym_trainers.chat.conversation import Conversation
from envgym_trainers.distributed.team import Team
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.learner.scorer import scorer_of
from envgym_trainers.learner.updater import Loss, Updater
from envgym_trainers.models.checkpoint import Checkpoint, latest_checkpoint, restoring, save_checkpoint
from envgym_trainers.models.context import NEW_MODEL_CONTEXT
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import choose_tool_format, load_model
from envgym_trainers.models.placement import place
from envgym_trainers.models.tiny import new_model
from envgym_trainers.objectives import Metrics
from envgym_trainers.objectives.ops.reduction import Totals, token_mean
from envgym_trainers.recipe import SupervisedRecipe
from envgym_trainers.stages.measurement import measure, write_summary
from envgym_trainers.stages.setup import (
    EnvironmentSet,
    check_setup,
    open_collector,
    open_environments,
    open_setup,
)
from envgym_trainers.stages.stopping import StopRequest
from envgym_trainers.stages.team_up import follow_leader, teamed_up

__all__ = ["SupervisedStage", "negative_log_likelihood", "write_tokens"]


_MIN_SOLVED = 0.98
"""Share of gold trajectories that must solve their task; a busy machine may lose a few to deadlines."""


def negative_log_likelihood(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
    """Return the mean over the policy's tokens of −log π, over the whole optimizer batch."""
    metrics = {"entropy": token_mean(outputs.entropy, batch.mask, totals)}
    return token_mean(-outputs.logprobs, batch.mask, totals), metrics


def write_tokens(trajectory: Trajectory, language_model: LanguageModel) -> None:
    """Set, in place, the tokens by which the model would write the action of every turn."""
    writer = language_model.tool_format
    conversation = Conversation(language_model.tokenizer, trajectory.tools, writer)
    stops = language_model.stop_ids
    for turn in trajectory.turns:
        prompt_ids, fork = conversation.prompt(turn.messages)
        said = "".join(
            [turn.action.content, *(json.dumps(c.arguments, ensure_ascii=False) for c in turn.action.tool_calls)]
        )
        ids = conversation.encode(writer.render_for(turn.action, trajectory.tools), words=said)
        # Some formats end a call with a token of its own.
        if not ids or ids[-1] not in stops:
            ids.append(stops[0])
        conversation.sampled(ids, stops)
        turn.tokens = TurnTokens(
            prompt_ids=prompt_ids, completion_ids=ids, logprobs=[0.0] * len(ids), policy_version=0, fork=fork
        )


class SupervisedStage(Stage):
    """Trains on demonstrations, and measures the result on held-out tasks."""

    class Config(SupervisedRecipe):
        """The recipe."""

    config: Config

    def check(self) -> None:
        """Look for what the recipe names; see ``Stage.check``."""
        check_setup(self.config)

    async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
        """Imitate the experts, and measure afterwards; see ``Stage.run``."""
        return await _Run(self.config, folder, reporter).run()

    def follow(self) -> None:
        """Learn as the first process says; see ``Stage.follow``."""

        def begin(values: dict[str, Any], team: Team) -> tuple[Updater, Loss]:
            recipe = type(self.config)(**values["recipe"])
            return make_imitator(recipe, values["total"], None, team), negative_log_likelihood

        follow_leader(self.config, begin)


def make_imitator(
    recipe: SupervisedRecipe, total: int, language_model: LanguageModel | None, team: Team
) -> Updater:
    """Return the updater of a run, in every process of a team.

    Args:
        recipe: the run's recipe.
        total: number of updates.
        language_model: the model to train; ``None`` in all processes but the leader.
        team: the processes.
    """
    policy = scorer_of(language_model, team, recipe.model.dtype)
    return Updater(policy, recipe.optimizer, temperature=1.0, total_updates=total, team=team)


class _Run:
    """One run of the stage."""

    def __init__(self, recipe: SupervisedRecipe, folder: RunFolder, reporter: Reporter) -> None:
        self._recipe = recipe
        self._folder = folder
        self._reporter = reporter
        self._checkpoint: Checkpoint | None = None
        """The one to go on from."""

    async def run(self) -> dict[str, Any] | None:
        """Run to the end, or until asked to stop; continue from the newest checkpoint in the folder.

        Returns:
            the summary, or ``None`` if the run was stopped before its end.

        Raises:
            UserError: the recipe cannot be carried out here.
        """
        recipe = self._recipe
        self._checkpoint = latest_checkpoint(self._folder.checkpoints, self._reporter.say)
        if self._checkpoint:
            self._checkpoint.check(recipe.identity())
        with StopRequest(self._reporter.say) as stop:
            async with (
                teamed_up(recipe.model.device) as team,
                open_environments(recipe, self._reporter) as environments,
            ):
                played = await self._demonstrations(environments)
                language_model = self._language_model(played)
                samples = self._samples(played, language_model)
                started = time.monotonic()
                updates = await asyncio.to_thread(self._train, language_model, samples, stop, team)
                seconds = time.monotonic() - started
                if updates is None:
                    self._reporter.say(f"stopped; resume with: envgym train --resume {self._folder.path}")
                    return None
                async with open_setup(recipe, environments, language_model) as setup:
                    self._reporter.say(setup.limits)
                    after = await measure(setup, self._folder, "after", self._reporter)
                    return write_summary(
                        self._folder,
                        setup,
                        None,
                        after,
                        steps=updates,
                        seconds=seconds,
                        ended="all updates done",
                    )

    async def _demonstrations(self, environments: EnvironmentSet) -> list[Trajectory]:
        """Play demonstrations of training tasks, a share of them by beginners.

        Raises:
            DataError: experts failed too many of their own tasks, so that an environment must be broken.
        """
        recipe = self._recipe
        rng = derive_rng("novice", recipe.seed)
        async with open_collector(recipe, environments, Expert()) as collector:
            sizes = {entry.label: len(collector.tasks(entry.label, "train")) for entry in environments.entries}
            mix = Mix(environments.entries, sizes, recipe.seed)
            drawn = [label for label, count in mix.quotas(recipe.examples).items() for _ in range(count)]
            jobs = [(label, collector.tasks(label, "train")[mix.draw(label)], i) for i, label in enumerate(drawn)]
            by_novice = {i for i in range(len(jobs)) if rng.random() < recipe.novice}
            self._reporter.begin("demonstrations", len(jobs))
            gold = await self._play(collector, [job for job in jobs if job[2] not in by_novice])
        async with open_collector(recipe, environments, Novice()) as collector:
            flawed = await self._play(collector, [job for job in jobs if job[2] in by_novice])
            self._reporter.end()
        return self._solved(gold) + [trajectory for trajectory in flawed if not trajectory.failed]

    async def _play(self, collector: Collector, jobs: Sequence[tuple[str, Task, int]]) -> list[Trajectory]:
        async def play(label: str, task: Task, index: int) -> Trajectory:
            trajectory = await collector.episode(label, task, index)
            self._reporter.advance()
            return trajectory

        async with asyncio.TaskGroup() as running:
            plays = [running.create_task(play(*job)) for job in jobs]
        return [finished.result() for finished in plays]

    def _solved(self, gold: list[Trajectory]) -> list[Trajectory]:
        """Return the experts' trajectories that solve their task.

        Raises:
            DataError: they are too few.
        """
        solved = [t for t in gold if t.score is not None and t.score.accuracy == 1]
        if len(solved) < len(gold):
            lost = next(t for t in gold if t.score is None or t.score.accuracy < 1)
            text = (
                f"{len(gold) - len(solved)} of {len(gold)} gold trajectories did not solve their task, e.g. "
                f"{lost.env} {lost.task.id!r}: {lost.outcome.kind} {lost.outcome.reason}"
            )
            if len(solved) < _MIN_SOLVED * len(gold):
                raise DataError(text)
            self._reporter.say(f"left out: {text}")
        return solved

    def _language_model(self, played: Sequence[Trajectory]) -> LanguageModel:
        config, conversations = self._recipe.model, self._recipe.sampling.concurrency
        if config.new is None:
            self._reporter.say(f"loading {config.path}")
        if self._checkpoint and not config.lora_rank:
            return load_model(config.model_copy(update={"path": str(self._checkpoint.model)}), conversations)
        if config.new is None:
            return load_model(config, conversations)
        writer = choose_tool_format(config.tool_format)
        texts = [
            writer.render_for(m, t.tools) if m.role == "assistant" else m.content
            for t in played
            for m in t.messages
        ]
        texts += [f"{spec.name}({','.join(_names(spec.parameters))}) " for t in played for spec in t.tools]
        made = new_model(config.new, texts, config.context or NEW_MODEL_CONTEXT)
        place(made.model, config.device, config.dtype)
        return dataclasses.replace(made, tool_format=writer)

    def _samples(self, played: Sequence[Trajectory], language_model: LanguageModel) -> list[Sample]:
        """Return the samples to train on, without those longer than the model's context.

        Raises:
            DataError: nothing fits the model's context.
        """
        for trajectory in played:
            write_tokens(trajectory, language_model)
        samples = [s for t in played for s in samples_of(t, t.env)]
        fitting = [sample for sample in samples if len(sample) <= language_model.context]
        if len(fitting) < len(samples):
            text = (
                f"{len(samples) - len(fitting)} of {len(samples)} demonstrations are longer than the context of "
                f"{language_model.context} tokens; the longest has {max(map(len, samples))}"
            )
            if not fitting:
                raise DataError(f"{text}: raise model.context")
            self._reporter.say(f"left out: {text}")
        return fitting

    def _train(
        self, language_model: LanguageModel, samples: Sequence[Sample], stop: StopRequest, team: Team
    ) -> int | None:
        """Run the epochs; return the number of updates, or ``None`` if stopped before the last."""
        recipe = self._recipe
        per_epoch = -(-len(samples) // recipe.batch_size)
        total = max(1, round(per_epoch * recipe.epochs))
        torch.set_num_threads(team.threads(torch.get_num_threads()))
        team.hand_out("begin", recipe=recipe.model_dump(mode="json"), total=total)
        updater = make_imitator(recipe, total, language_model, team)
        done = 0
        if self._checkpoint:
            with restoring(self._checkpoint):
                done = self._checkpoint.state()["updates"]
                updater.resume(self._checkpoint)
        self._folder.forget_after(done)
        self._reporter.begin("update", total, done)
        while done < total and not stop.requested:
            epoch, place = divmod(done, per_epoch)
            order = list(range(len(samples)))
            random.Random(derive_seed("epoch", recipe.seed, epoch)).shuffle(order)
            picked = order[place * recipe.batch_size : (place + 1) * recipe.batch_size]
            metrics = updater.update(as_units(samples[i] for i in picked), negative_log_likelihood)
            done += 1
            self._folder.append_metrics({"step": done, **metrics})
            if updater.fault:
                self._reporter.say(f"warning: update {done} was skipped, not finite: {updater.fault}")
            self._reporter.advance(f"loss {metrics['loss']:.3f}")
            if done % recipe.checkpoint_every == 0 or done == total or stop.requested:
                state = {"identity": recipe.identity(), "updates": done}
                updater.publish(language_model)
                save_checkpoint(
                    self._folder.checkpoints,
                    done,
                    language_model,
                    updater.state(),
                    state,
                    write_shards=updater.write_shards,
                )
        self._reporter.end()
        return done if done == total else None


def _names(parameters: dict[str, Any]) -> list[str]:
    return list(parameters.get("properties", {}))
