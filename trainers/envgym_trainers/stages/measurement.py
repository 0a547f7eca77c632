"""Measure a run on held-out tasks before and after, and write the summary."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from envgym.evaluate import EnvScores, evaluate, mean_interval, mean_of_means, paired_gain
from envgym.records import SCHEMA, Trajectory
from envgym.runs.folder import RunFolder, read_json, write_atomic
from envgym.runs.progress import Reporter
from envgym_trainers.stages.setup import TrainingSetup

__all__ = ["measure", "summarise", "write_summary"]

Scores = dict[str, EnvScores]


async def measure(setup: TrainingSetup, folder: RunFolder, when: str, reporter: Reporter) -> Scores:
    """Evaluate on held-out tasks, or read the result of an earlier process of this run.

    Args:
        setup: the run's parts.
        folder: keeps the result as ``<when>.json``.
        when: ``before`` or ``after``.
        reporter: shows progress.

    Raises:
        PolicyError: the engine stopped.
    """
    path = folder.path / f"{when}.json"
    if path.is_file():
        return {label: EnvScores(**values) for label, values in read_json(path)["environments"].items()}
    settings = setup.recipe.evaluate
    reporter.begin(f"evaluate {when}", settings.tasks * settings.samples * len(setup.labels))
    running: dict[str, list[float]] = {}

    def note(trajectory: Trajectory) -> None:
        if not trajectory.failed:
            running.setdefault(trajectory.env, []).append(trajectory.reward)
        reporter.advance(" ".join(f"{k} {sum(v) / len(v):.2f}" for k, v in sorted(running.items())))

    scores = await evaluate(
        setup.collector,
        setup.labels,
        split="held_out",
        limit=settings.tasks,
        samples=settings.samples,
        on_episode=note,
    )
    reporter.end()
    setup.engine.check()
    environments = {label: asdict(s) for label, s in scores.items()}
    write_atomic(path, json.dumps({"schema": SCHEMA, "environments": environments}))
    return scores


def summarise(before: Scores, after: Scores) -> dict[str, Any]:
    """Summarise held-out reward per environment and overall: before, after, paired gain; accuracy and parts."""
    environments: dict[str, Any] = {}
    strata: dict[str, list[list[float]]] = {"before": [], "after": [], "gain": []}
    for label in before:
        both = sorted(before[label].rewards.keys() & after[label].rewards.keys())
        old = [before[label].rewards[i] for i in both]
        new = [after[label].rewards[i] for i in both]
        strata["before"].append(old)
        strata["after"].append(new)
        strata["gain"].append([b - a for a, b in zip(old, new, strict=True)])
        environments[label] = {
            "before": mean_interval(old).as_dict(),
            "after": mean_interval(new).as_dict(),
            "gain": paired_gain(old, new).as_dict(),
            "accuracy": {
                "before": mean_interval([before[label].accuracies[i] for i in both]).as_dict(),
                "after": mean_interval([after[label].accuracies[i] for i in both]).as_dict(),
            },
            "parts": {
                name: {
                    "before": mean_interval(list(before[label].parts.get(name, {}).values())).as_dict(),
                    "after": mean_interval(list(part.values())).as_dict(),
                }
                for name, part in after[label].parts.items()
            },
            "failed_episodes": before[label].failed + after[label].failed,
        }
    overall = {name: mean_of_means(values).as_dict() for name, values in strata.items()}
    return {"environments": environments, "overall": overall}


def write_summary(
    folder: RunFolder, setup: TrainingSetup, before: Scores, after: Scores, steps: int, seconds: float
) -> dict[str, Any]:
    """Write ``summary.json`` and return it."""
    rows = folder.metrics()
    recipe = setup.recipe
    return folder.write_summary(
        {
            **summarise(before, after),
            "metric": "mean held-out reward, sampled at the training temperature",
            "model": recipe.model.path,
            "steps": steps,
            "seconds": {"training": round(seconds, 1)},
            "tokens": {
                "sampled_in_training": int(sum(row.get("sampled_tokens", 0) for row in rows)),
                "sampled_in_evaluation": sum(s.tokens for s in (*before.values(), *after.values())),
            },
            "episodes": {
                "training": int(sum(row.get("episodes", 0) for row in rows)),
                "failed": int(sum(row.get("episodes_failed", 0) for row in rows)),
            },
            "left_out": setup.environments.left_out,
            "seeds": {"run": recipe.seed},
        }
    )
