"""Best of start: what the start model earns on the held-out tasks if only its decoding is chosen well."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from envgym.evaluate import EnvScores, evaluate
from envgym.records import SCHEMA
from envgym.runs.folder import RunFolder, read_json, write_atomic
from envgym.runs.progress import Reporter
from envgym_trainers.chat.policy import EnginePolicy
from envgym_trainers.models.load import load_model
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.setup import TrainingSetup, open_collector, open_environments, open_setup
from envgym_trainers.stages.stopping import StopRequest

__all__ = ["TEMPERATURES", "start_scores"]

TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Temperatures tried, beside the recipe's own. The best is chosen by the tasks that are reported: that favours the
start model, and so makes it the harder rival."""


async def start_scores(
    recipe: ReinforcementRecipe, folder: RunFolder, reporter: Reporter
) -> dict[str, dict[str, EnvScores]] | None:
    """Evaluate the start model at every temperature, but those that an earlier process of this run did.

    Args:
        recipe: the run's recipe.
        folder: keeps the scores in ``controls/start.json``.
        reporter: shows progress.

    Returns:
        scores by temperature and environment, or ``None`` if the work was stopped.

    Raises:
        UserError: the recipe cannot be carried out here.
    """
    path = folder.path / "controls" / "start.json"
    kept: dict[str, Any] = read_json(path)["temperatures"] if path.is_file() else {}
    wanted = {f"{t:g}": t for t in sorted({*TEMPERATURES, recipe.sampling.temperature})}
    if missing := {name: t for name, t in wanted.items() if name not in kept}:
        with StopRequest() as stop:
            async with (
                open_environments(recipe, reporter) as environments,
                open_setup(recipe, environments, load_model(recipe.model)) as setup,
            ):
                for name, temperature in missing.items():
                    if stop.requested:
                        return None
                    scores = await _scores(setup, temperature, reporter)
                    kept[name] = {label: asdict(s) for label, s in scores.items()}
                    write_atomic(path, json.dumps({"schema": SCHEMA, "temperatures": kept}))
    return {
        name: {label: EnvScores(**values) for label, values in kept[name].items()}
        for name in wanted
        if name in kept
    }


async def _scores(setup: TrainingSetup, temperature: float, reporter: Reporter) -> dict[str, EnvScores]:
    recipe = setup.recipe
    settings = recipe.evaluate
    policy = EnginePolicy(
        engine=setup.engine,
        language_model=setup.language_model,
        temperature=temperature,
        max_tokens=recipe.sampling.max_tokens,
    )
    reporter.begin(f"start, temperature {temperature:g}", settings.tasks * settings.samples * len(setup.labels))
    async with open_collector(recipe, setup.environments, policy) as collector:
        scores = await evaluate(
            collector,
            setup.labels,
            split="held_out",
            limit=settings.tasks,
            samples=settings.samples,
            on_episode=lambda _: reporter.advance(),
        )
    reporter.end()
    setup.engine.check()
    return scores
