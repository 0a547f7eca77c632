"""Run a recipe again under control rewards, and compare: what gains as much without learning the task?"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from envgym.errors import DataError, EnvgymError, RecipeError, UserError
from envgym.evaluate import EnvScores
from envgym.evaluate.verdict import Contender, judge, level
from envgym.records import SCHEMA
from envgym.runs.durable import write_atomic
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.report import render_report
from envgym_trainers.controls import RewardSettings
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.decoding import scores_at
from envgym_trainers.stages.measurement import read_scores
from envgym_trainers.stages.setup import evaluation_temperature

__all__ = ["ControlRuns", "chosen_controls"]

_KNOWN = tuple(c for c in get_args(RewardSettings.model_fields["control"].annotation) if c != "none")
_RATES = {"": 1.0, "-third": 1 / 3, "-tenth": 1 / 10}
"""Learning rates tried for a control, as shares of the recipe's, by the ending of the folder's name."""
_TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Temperatures of the start model, beside the recipe's own."""
_WRECKED = 0.05
"""A control that ends this much below its start in one way of decoding, and not as much above it in another, has
wrecked the policy. It is a weak rival whose learning rate suits the true reward only, so a lower one is tried. A
start near 0 cannot fall, so that not every way of decoding needs to."""

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
    """One run, finished and measured."""

    run: str
    learning_rate: float
    contender: Contender

    @property
    def gains(self) -> list[float]:
        """Overall gain by the way of decoding; 0 where nothing was measured."""
        means = [self.contender.gain(decoding).mean for decoding in self.contender.after]
        return [0.0 if math.isnan(mean) else mean for mean in means]

    @property
    def wrecked(self) -> bool:
        """Whether the policy ended far below its start."""
        return min(self.gains) < -_WRECKED and max(self.gains) < _WRECKED

    def as_dict(self) -> dict[str, Any]:
        """Return the try as JSON values, with intervals overall and by environment."""
        return {
            "run": self.run,
            "learning_rate": self.learning_rate,
            "wrecked": self.wrecked,
            **self.contender.as_dict(),
        }


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
        self._start: dict[float, Mapping[str, EnvScores]] = {}

    async def compare(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Run the controls, write ``controls.json`` and return it, or return ``None`` if it was stopped.

        Raises:
            UserError: no control could be run.
        """
        record = await self._compare(names)
        if record is None:
            self._reporter.say(f"stopped; resume the controls with: envgym train --resume {self._folder.path}")
        return record

    async def _compare(self, names: Sequence[str]) -> dict[str, Any] | None:
        recipe = self._recipe
        path = self._folder.path / "controls" / "start.json"
        before = read_scores(self._folder.evaluation("before"))
        known = {0.0: before["greedy"], evaluation_temperature(recipe): before["sampled"]}
        wanted = [temperature for temperature in _TEMPERATURES if temperature not in known]
        start = await scores_at(wanted, recipe, recipe.model, path, self._reporter)
        if start is None:
            return None
        self._start = dict(sorted({**known, **start}.items()))
        trained = self._measured(self._folder, recipe)
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
                    return None
                tries[name] = found
        if not tries:
            raise UserError(f"no control could be run: {'; '.join(not_run.values())}")
        record = {**self._record(trained, tries), "not_run": not_run}
        write_atomic(
            self._folder.path / "controls.json", json.dumps({"schema": SCHEMA, **record}, indent=2) + "\n"
        )
        return record

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
            tries.append(self._measured(folder, recipe))
            if not tries[-1].wrecked:
                break
        return tries

    def _controlled(self, name: str, share: float) -> ReinforcementRecipe:
        """Return the recipe under a control, with the steps that the run took where its budget ended it."""
        recipe = self._recipe
        optimizer = recipe.optimizer
        rate = optimizer.model_copy(update={"learning_rate": optimizer.learning_rate * share})
        summary = self._folder.summary() or {}
        budget = recipe.max_minutes or recipe.max_sampled_tokens
        if budget and not isinstance(summary.get("steps"), int):
            raise DataError(f"{'; '.join(self._folder.damage.lines()) or self._folder.path}: no number of steps")
        changes = {"steps": summary["steps"], "max_minutes": 0.0, "max_sampled_tokens": 0} if budget else {}
        reward = RewardSettings.model_validate({"control": name})
        return recipe.model_copy(update={"reward": reward, "optimizer": rate, **changes})

    def _open(self, name: str, recipe: ReinforcementRecipe) -> RunFolder:
        path = self._folder.path / "controls" / name
        if (path / "recipe.toml").exists():
            return RunFolder.existing(path)
        folder = RunFolder.create(path, recipe, recipe.seed)
        # The start model is the same, and so are the tasks and the seeds: it need not be measured again.
        before = self._folder.evaluation("before").read_text(encoding="utf-8")
        write_atomic(folder.evaluation("before"), before)
        return folder

    def _measured(self, folder: RunFolder, recipe: ReinforcementRecipe) -> _Try:
        """Return a finished run with its rewards."""
        before, after = (read_scores(folder.evaluation(when)) for when in ("before", "after"))
        contender = Contender(before=before, after=after)
        place = str(folder.path.relative_to(self._folder.path))
        return _Try(run=place, learning_rate=recipe.optimizer.learning_rate, contender=contender)

    def _record(self, trained: _Try, tries: dict[str, list[_Try]]) -> dict[str, Any]:
        best = {name: max(found, key=lambda one: sum(one.gains)) for name, found in tries.items()}
        overall = {t: level(scores) for t, scores in self._start.items()}
        best_temperature = max(overall, key=lambda t: overall[t]["overall"]["mean"] or 0.0)
        controls = {
            name: {**chosen.as_dict(), "tries": [one.as_dict() for one in tries[name]]}
            for name, chosen in best.items()
        }
        return {
            "rows": {"trained": trained.as_dict(), **controls},
            "best_of_start": {
                "best": f"{best_temperature:g}",
                "temperatures": {f"{t:g}": values for t, values in overall.items()},
            },
            "verdict": judge(
                trained.contender,
                {name: chosen.contender for name, chosen in best.items()},
                self._start[best_temperature],
            ),
        }


def _first(error: BaseException) -> str:
    """Return the message of the first error in a group, at any depth."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)
