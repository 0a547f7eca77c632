"""Runs of a recipe over seeds, and what they say together: shared by the scripts that compare runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

T_QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""97.5% quantiles of Student's t, by the number of seeds."""


def train(recipe: str, out: Path, settings: Sequence[str], *, ends_with: str, options: Sequence[str] = ()) -> None:
    """Run ``envgym train`` in ``out``, or go on with it; a run that is finished is left as it is.

    Args:
        recipe: path of the recipe.
        out: the run's folder; its log is beside it.
        settings: ``--set`` arguments of a new run.
        ends_with: name of the file that a finished run has.
        options: further words, also for a run that goes on.
    """
    if (out / ends_with).is_file():
        return
    if (out / "recipe.toml").is_file():
        words = ["--resume", str(out)]
    else:
        words = [recipe, "--out", str(out), *(word for setting in settings for word in ("--set", setting))]
    code = "from envgym.cli import main; main()"
    with (out.parent / f"{out.name}.log").open("ab") as log:
        subprocess.run([sys.executable, "-c", code, "train", *words, *options], check=True, stdout=log, stderr=log)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over seeds and the limits of Student's 95% interval; limits are NaN for a single seed."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = T_QUANTILE[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def over_seeds(values: Sequence[float]) -> str:
    """Return mean and interval over seeds as text."""
    mean, low, high = interval(values)
    return f"{mean:+.3f}" if len(values) < 2 else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
