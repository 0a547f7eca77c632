"""Evaluate a model on the held-out tasks at several temperatures, and keep the scores in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from envgym.evaluate import EnvScores, evaluate
from envgym.records import SCHEMA, Trajectory
from envgym.runs.durable import write_atomic
from envgym.runs.progress import Reporter
from envgym.runs.tally import Tally
from envgym_trainers.chat.policy import EnginePolicy
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.recipe import StageRecipe
from envgym_trainers.stages.measurement import read_scores
from envgym_trainers.stages.setup import TrainingSetup, evaluation_cut, open_environments, open_setup
from envgym_trainers.stages.stopping import StopRequest

__all__ = ["scores_at"]


async def scores_at(
    temperatures: Iterable[float], recipe: StageRecipe, model: ModelConfig, path: Path, reporter: Reporter
) -> dict[float, dict[str, EnvScores]] | None:
    """Evaluate a model at every temperature, but those whose scores are in the file already.

    Args:
        temperatures: temperatures of sampling; 0 is greedy.
        recipe: the run's recipe, for the tasks and the limits of sampling.
        model: the model, in the place of the recipe's own.
        path: JSON file that keeps the scores.
        reporter: shows progress.

    Returns:
        scores by temperature, in ascending order, and environment, or ``None`` if the work was stopped.

    Raises:
        UserError: the model cannot be loaded, or the recipe cannot be carried out here.
    """
    kept = _kept(path)
    wanted = {str(t): t for t in sorted(set(temperatures))}
    if missing := {name: t for name, t in wanted.items() if name not in kept}:
        with StopRequest(reporter.say) as stop:
            async with (
                open_environments(recipe, reporter) as environments,
                open_setup(recipe, environments, load_model(model, recipe.sampling.concurrency)) as setup,
            ):
                for name, temperature in missing.items():
                    if stop.requested:
                        return None
                    kept[name] = await _scores(setup, temperature, reporter)
                    stored = {t: {label: asdict(s) for label, s in found.items()} for t, found in kept.items()}
                    write_atomic(path, json.dumps({"schema": SCHEMA, "temperatures": stored}) + "\n")
    return {temperature: kept[name] for name, temperature in wanted.items()}


def _kept(path: Path) -> dict[str, dict[str, EnvScores]]:
    return read_scores(path, "temperatures") if path.exists() else {}


async def _scores(setup: TrainingSetup, temperature: float, reporter: Reporter) -> dict[str, EnvScores]:
    recipe = setup.recipe
    settings = recipe.evaluate
    policy = EnginePolicy(
        engine=setup.engine,
        language_model=setup.language_model,
        temperature=temperature,
        max_tokens=recipe.sampling.max_tokens,
        **evaluation_cut(recipe),
    )
    total = settings.tasks * settings.samples * len(setup.labels)
    reporter.begin(f"evaluate at {temperature:g}", total, status=setup.tokens_status())
    tally = Tally()

    def note(trajectory: Trajectory) -> None:
        tally.add(trajectory)
        reporter.advance(str(tally))

    scores = await evaluate(
        setup.collector,
        setup.labels,
        split="held_out",
        limit=settings.tasks,
        samples=settings.samples,
        policy=policy,
        on_episode=note,
    )
    reporter.end()
    setup.engine.check()
    return scores
