"""``envgym train``: run a recipe, or continue a run."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from envgym.cli.options import Settings
from envgym.errors import RecipeError, UserError

if TYPE_CHECKING:
    from envgym.runs.stage import Stage

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("train")(train_command)
    app.command("report")(report_command)


def train_command(
    recipe: Annotated[Path | None, typer.Argument(help="a recipe, e.g. recipes/quickstart.toml")] = None,
    set_: Settings = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder; runs/NAME-TIME by default")] = None,
    resume: Annotated[Path | None, typer.Option(help="continue the run in this folder")] = None,
) -> None:
    """Train as a recipe says, and measure on held-out tasks before and after.

    Ctrl-C stops the run after the current step and saves it; a second Ctrl-C stops it at once. In both cases, and
    after a crash, --resume continues from the last checkpoint.
    """
    from envgym.runs.folder import RunFolder
    from envgym.runs.progress import Reporter, duration
    from envgym.runs.report import render_report
    from envgym.runs.table import summary_table

    if (recipe is None) == (resume is None):
        raise UserError("give either a recipe or --resume FOLDER, e.g. envgym train recipes/quickstart.toml")
    if resume is not None:
        if set_ or out:
            raise UserError("--resume uses the run's own recipe: --set and --out do not apply")
        folder = RunFolder.existing(resume)
        stage = _stage(folder.path / "recipe.toml", [])
    else:
        path = recipe or Path()
        stage = _stage(path, set_ or [])
        place = out or Path("runs") / f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = RunFolder.create(place, stage.config, stage.config.seed)
    started = time.monotonic()
    with Reporter() as reporter:
        reporter.say(f"run folder: {folder.path}")
        summary = asyncio.run(stage.run(folder, reporter))
    if summary is None:
        sys.exit(130)
    report = render_report(folder)
    print(summary_table(summary))
    print(f"finished in {duration(time.monotonic() - started)}; report: {report}")


def report_command(
    run: Annotated[Path, typer.Argument(help="a run's folder, finished or not")],
) -> None:
    """Write the report of a run: one self-contained HTML file."""
    from envgym.runs.folder import RunFolder
    from envgym.runs.report import render_report

    print(render_report(RunFolder.existing(run)))


def _stage(path: Path, overrides: list[str]) -> Stage:
    """Make the stage that a recipe names, with the recipe as its settings."""
    from envgym.config import read_recipe
    from envgym.runs.stage import Stage, stages

    values = read_recipe(path, overrides)
    name = values.get("stage", Stage.Config().stage)
    if not isinstance(name, str):
        raise RecipeError(f"{path.name}: stage: must be one of {', '.join(stages.plugins())} (got {name!r:.80})")
    return stages.make(name, values, source=path.name)
