"""Run a recipe again under control rewards, and compare: what gains as much without learning the task?"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from envgym.errors import EnvgymError, RecipeError, UserError
from envgym.evaluate import EnvScores, mean_of_means
from envgym.evaluate.verdict import Contender, Rewards, judge
from envgym.records import SCHEMA
from envgym.runs.folder import RunFolder, read_json, write_atomic
from envgym.runs.progress import Reporter
from envgym.runs.report import render_report
from envgym_trainers.controls import RewardSettings
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.start_scores import start_scores

__all__ = ["ControlRuns", "chosen_controls"]

_KNOWN = tuple(c for c in get_args(RewardSettings.model_fields["control"].annotation) if c != "none")
_RATES = {"": 1.0, "-third": 1 / 3, "-tenth": 1 / 10}
"""Learning rates tried for a control, as shares of the recipe's, by the ending of the folder's name."""
_WRECKED = 0.05
"""A control that ends this much below its start, however it is decoded, has wrecked the policy. It is a weak rival
whose learning rate suits the true reward only, and is tried again at a lower one."""

RunRecipe = Callable[[ReinforcementRecipe, RunFolder], Awaitable[dict[str, Any] | None]]
"""Runs a recipe in a folder, as ``Stage.run`` does."""


def chosen_controls(recipe: ReinforcementRecipe, names: Sequence[str]) -> list[str]:
    """Return the controls to run: those named, or all.

    Raises:
        RecipeError: there is no such control, or the recipe is itself under one.
    """
    if unknown := [name for name in names if name not in _KNOWN]:
        raise RecipeError(f"unknown control {unknown[0]!r}; allowed: {', '.join(_KNOWN)}")
    if recipe.reward.control != "none":
        raise RecipeError(
            f"reward.control is {recipe.reward.control!r}: that run is a control itself; "
            "set it to 'none' to compare the true reward with controls"
        )
    return list(names) or list(_KNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One run, finished."""

    folder: RunFolder
    learning_rate: float
    overall: dict[str, Any]
    environments: dict[str, Any]
    contender: Contender

    @property
    def wrecked(self) -> bool:
        """Whether the policy ended far below its start, however it is decoded."""
        return all((part["gain"]["mean"] or 0.0) < -_WRECKED for part in self.overall.values())

    @property
    def strength(self) -> float:
        """Mean gain over the ways of decoding."""
        gains = [part["gain"]["mean"] or 0.0 for part in self.overall.values()]
        return float(sum(gains) / len(gains))


class ControlRuns:
    """The control runs of one finished run; those that an earlier process finished are not run again.

    Args:
        recipe: the finished run's recipe.
        folder: its folder; the runs are made in ``controls`` inside it.
        run: runs a recipe.
        reporter: shows progress.
    """

    def __init__(self, recipe: ReinforcementRecipe, folder: RunFolder, run: RunRecipe, reporter: Reporter) -> None:
        self._recipe = recipe
        self._folder = folder
        self._run = run
        self._reporter = reporter

    async def compare(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Run the controls, write ``controls.json`` and return it, or return ``None`` if it was stopped.

        Raises:
            UserError: no control could be run.
        """
        tries: dict[str, list[_Try]] = {}
        not_run: dict[str, str] = {}
        for name in names:
            try:
                found = await self._tries(name)
            except EnvgymError as error:
                not_run[name] = str(error)
            except ExceptionGroup as group:
                ours, others = group.split(EnvgymError)
                if ours is None or others is not None:
                    raise
                not_run[name] = _first(ours)
            else:
                if found is None:
                    return self._stopped()
                tries[name] = found
        if not tries:
            raise UserError(f"no control could be run: {'; '.join(not_run.values())}")
        start = await start_scores(self._recipe, self._folder, self._reporter)
        if start is None:
            return self._stopped()
        record = self._record(tries, not_run, start)
        write_atomic(
            self._folder.path / "controls.json", json.dumps({"schema": SCHEMA, **record}, indent=2) + "\n"
        )
        return record

    def _stopped(self) -> None:
        self._reporter.say(f"stopped; resume the controls with: envgym train --resume {self._folder.path}")

    async def _tries(self, name: str) -> list[_Try] | None:
        """Run one control, at a lower rate if it wrecks the policy; return ``None`` if it was stopped."""
        tries: list[_Try] = []
        for ending, share in _RATES.items():
            recipe = self._controlled(name, share)
            folder = self._open(name + ending, recipe)
            if folder.summary() is None:
                self._reporter.say(f"control {name} at learning rate {recipe.optimizer.learning_rate:.3g}")
                if await self._run(recipe, folder) is None:
                    return None
                render_report(folder)
            tries.append(_finished(folder, recipe.optimizer.learning_rate))
            if not tries[-1].wrecked:
                break
        return tries

    def _controlled(self, name: str, share: float) -> ReinforcementRecipe:
        """Return the recipe under a control, with the steps that the run took where its minutes ended it."""
        recipe = self._recipe
        optimizer = recipe.optimizer
        rate = optimizer.model_copy(update={"learning_rate": optimizer.learning_rate * share})
        summary = self._folder.summary() or {}
        changes = {"steps": summary["steps"], "max_minutes": 0.0} if recipe.max_minutes else {}
        reward = RewardSettings.model_validate({"control": name})
        return recipe.model_copy(update={"reward": reward, "optimizer": rate, **changes})

    def _open(self, name: str, recipe: ReinforcementRecipe) -> RunFolder:
        path = self._folder.path / "controls" / name
        if (path / "recipe.toml").exists():
            return RunFolder.existing(path)
        folder = RunFolder.create(path, recipe, recipe.seed)
        # The start model is the same, and so are the tasks and the seeds: it need not be measured again.
        before = (self._folder.path / "before.json").read_text(encoding="utf-8")
        write_atomic(path / "before.json", before)
        return folder

    def _record(
        self, tries: dict[str, list[_Try]], not_run: dict[str, str], start: dict[str, dict[str, EnvScores]]
    ) -> dict[str, Any]:
        trained = _finished(self._folder, self._recipe.optimizer.learning_rate)
        best = {name: max(found, key=lambda one: one.strength) for name, found in tries.items()}
        rewards = {t: _rewards(scores) for t, scores in start.items()}
        overall = {t: mean_of_means([list(tasks.values()) for tasks in r.values()]) for t, r in rewards.items()}
        best_temperature = max(overall, key=lambda t: overall[t].mean)
        return {
            "rows": {
                "trained": self._row(trained),
                **{
                    name: {**self._row(chosen), "tries": [self._row(one) for one in tries[name]]}
                    for name, chosen in best.items()
                },
            },
            "best_of_start": {
                "best": best_temperature,
                "temperatures": {t: interval.as_dict() for t, interval in overall.items()},
            },
            "not_run": not_run,
            "verdict": judge(
                trained.contender,
                {name: chosen.contender for name, chosen in best.items()},
                rewards[best_temperature],
            ),
        }

    def _row(self, one: _Try) -> dict[str, Any]:
        return {
            "overall": one.overall,
            "environments": one.environments,
            "learning_rate": one.learning_rate,
            "wrecked": one.wrecked,
            "run": str(one.folder.path.relative_to(self._folder.path)),
        }


def _first(error: BaseException) -> str:
    """Return the message of the first error in a group, at any depth."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)


def _finished(folder: RunFolder, learning_rate: float) -> _Try:
    summary = folder.summary() or {}
    return _Try(
        folder=folder,
        learning_rate=learning_rate,
        overall={"sampled": summary["overall"]},
        environments=summary["environments"],
        contender=Contender(before=_measured(folder, "before"), after=_measured(folder, "after")),
    )


def _measured(folder: RunFolder, when: str) -> dict[str, Rewards]:
    environments = read_json(folder.path / f"{when}.json")["environments"]
    return {"sampled": {label: values["rewards"] for label, values in environments.items()}}


def _rewards(scores: dict[str, EnvScores]) -> Rewards:
    return {label: s.rewards for label, s in scores.items()}
