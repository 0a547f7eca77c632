"""Measure a run on held-out tasks, greedily and at a temperature, and write the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pydantic

from envgym.errors import DataError
from envgym.evaluate import EnvScores, evaluate, mean_of
from envgym.records import SCHEMA, Trajectory
from envgym.runs.durable import write_atomic
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.reading import read_json
from envgym.runs.shapes import Best
from envgym.runs.tally import Tally
from envgym_trainers.stages.doubts import share_warnings, training_warnings
from envgym_trainers.stages.setup import TrainingSetup

__all__ = ["Scores", "measure", "overall", "read_scores", "summarise", "write_summary"]

_STORED: pydantic.TypeAdapter[dict[str, dict[str, EnvScores]]] = pydantic.TypeAdapter(
    dict[str, dict[str, EnvScores]]
)
_AGAIN = "delete it to measure again"

Scores = Mapping[str, Mapping[str, EnvScores]]
"""Scores by decoding (``greedy``, ``sampled``) and environment."""


async def measure(setup: TrainingSetup, folder: RunFolder, when: str, reporter: Reporter) -> Scores:
    """Evaluate on held-out tasks, or read the result of an earlier process of this run.

    Args:
        setup: the run's parts.
        folder: keeps the result as ``evaluations/<when>.json``.
        when: ``before``, ``after`` or ``step-000010``.
        reporter: shows progress.

    Raises:
        PolicyError: the engine stopped.
    """
    path = folder.evaluation(when)
    if path.exists():
        stored = read_scores(path)
        if any(stored.get(decoding, {}).keys() != set(setup.labels) for decoding in setup.decodings):
            raise DataError(f"{path}: holds scores of other environments than the recipe; {_AGAIN}")
        return stored
    settings = setup.recipe.evaluate
    samples = {"greedy": 1, "sampled": settings.samples}
    total = settings.tasks * sum(samples.values()) * len(setup.labels)
    reporter.begin(f"evaluate {when}", total, status=setup.tokens_status())
    scores: dict[str, dict[str, EnvScores]] = {}
    for decoding, policy in setup.decodings.items():
        tally = Tally()

        def note(trajectory: Trajectory, decoding: str = decoding, tally: Tally = tally) -> None:
            tally.add(trajectory)
            reporter.advance(f"{decoding}: {tally}")

        scores[decoding] = await evaluate(
            setup.collector,
            setup.labels,
            split="held_out",
            limit=settings.tasks,
            samples=samples[decoding],
            policy=policy,
            on_episode=note,
        )
    reporter.end()
    setup.engine.check()
    decodings = {d: {label: asdict(s) for label, s in found.items()} for d, found in scores.items()}
    write_atomic(path, json.dumps({"schema": SCHEMA, "decodings": decodings}))
    return scores


def read_scores(path: Path, kind: str = "decodings") -> dict[str, dict[str, EnvScores]]:
    """Return the scores that an evaluation wrote, by ``decodings`` or by ``temperatures``.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        return _STORED.validate_python(read_json(path).get(kind))
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, (kind, *fault["loc"])))
        raise DataError(f"{path}: holds no scores: {place:.100}: {fault['msg']}; {_AGAIN}") from None


def overall(scores: Mapping[str, EnvScores]) -> float:
    """Return the mean over environments of the mean held-out reward; NaN where nothing was measured."""
    return mean_of([found.interval() for found in scores.values()]).mean


def summarise(before: Scores | None, after: Scores) -> dict[str, Any]:
    """Summarise held-out reward per environment and overall, for each decoding; paired gains with ``before``."""
    labels = next(iter(after.values())).keys()
    environments: dict[str, dict[str, Any]] = {label: {} for label in labels}
    whole: dict[str, Any] = {}
    for decoding, found in after.items():
        intervals: dict[str, list[Any]] = {}
        for label, new in found.items():
            old = before[decoding][label] if before else None
            measured = {"before": old.interval() if old else None, "after": new.interval()}
            measured["gain"] = new.gain_over(old) if old else None
            for name, interval in measured.items():
                if interval is not None:
                    intervals.setdefault(name, []).append(interval)
            environments[label][decoding] = {
                **{name: interval.as_dict() for name, interval in measured.items() if interval is not None},
                **_details(old, new),
            }
        whole[decoding] = {name: mean_of(parts).as_dict() for name, parts in intervals.items()}
    return {"environments": environments, "overall": whole}


def _details(old: EnvScores | None, new: EnvScores) -> dict[str, Any]:
    sides = {"after": new} if old is None else {"before": old, "after": new}
    names = dict.fromkeys(name for side in sides.values() for name in side.parts)
    return {
        "accuracy": {when: side.accuracy().as_dict() for when, side in sides.items()},
        "parts": {name: {when: side.part(name).as_dict() for when, side in sides.items()} for name in names},
        "ended": {when: side.ended for when, side in sides.items()},
    }


def write_summary(
    folder: RunFolder,
    setup: TrainingSetup,
    before: Scores | None,
    after: Scores,
    *,
    steps: int,
    seconds: float,
    ended: str,
) -> dict[str, Any]:
    """Write ``summary.json`` and return it."""
    rows = folder.metrics()
    recipe = setup.recipe
    played = [s for scores in (before, after) if scores for found in scores.values() for s in found.values()]
    return folder.write_summary(
        {
            **summarise(before, after),
            "decodings": setup.temperatures,
            "metric": "mean held-out reward",
            "model": recipe.model.path,
            "steps": steps,
            "ended": ended,
            "best": read_json(best, Best)
            if (best := folder.checkpoints / "best" / "best.json").is_file()
            else None,
            "seconds": {"training": round(seconds, 1)},
            "tokens": {
                "sampled_in_training": int(sum(row.get("sampled_tokens") or 0 for row in rows)),
                "sampled_in_evaluation": sum(s.tokens for s in played),
            },
            "episodes": {
                "training": int(sum(row.get("episodes") or 0 for row in rows)),
                "failed": int(sum(row.get("episodes_failed") or 0 for row in rows)),
            },
            "warnings": [
                *setup.warnings,
                *training_warnings(rows),
                *share_warnings(before, after),
                *folder.damage.lines(),
            ],
            "left_out": setup.environments.left_out,
            "seeds": {"run": recipe.seed},
        }
    )
