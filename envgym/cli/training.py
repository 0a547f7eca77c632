"""``envgym train``: run a recipe, or continue a run."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from envgym.cli.interruption import STOPPED, run
from envgym.cli.options import Settings
from envgym.errors import RecipeError, UserError

if TYPE_CHECKING:
    from envgym.runs.folder import RunFolder
    from envgym.runs.processes import ProcessPlace
    from envgym.runs.stage import Stage

__all__ = ["add_to", "read_stage"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("train")(train_command)
    app.command("report")(report_command)


def train_command(
    recipe: Annotated[Path | None, typer.Argument(help="a recipe, e.g. recipes/quickstart.toml")] = None,
    set_: Settings = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder; runs/NAME-TIME by default")] = None,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="play the episodes on a cluster, e.g. ray: short for --set cluster.name=NAME"
        ),
    ] = "",
    resume: Annotated[Path | None, typer.Option(help="continue the run in this folder")] = None,
    with_controls: Annotated[
        bool, typer.Option("--with-controls", help="run the recipe again under every control reward, and compare")
    ] = False,
    controls: Annotated[
        str, typer.Option(metavar="NAMES", help="only these, e.g. entropy,random; implies --with-controls")
    ] = "",
    processes: Annotated[
        int | None, typer.Option(min=1, help="processes on this machine that learn together, each a part")
    ] = None,
) -> None:
    """Train as a recipe says, and measure on held-out tasks before and after.

    With --with-controls, the same recipe then runs under rewards that say nothing of the task (entropy, length,
    random, format, wrong_label), in subfolders of the run, with the same steps, groups and seed. One table
    compares the trained policy with them, and with the start model at its best temperature. A control that wrecks
    the policy is run again at a third and a tenth of the learning rate, and its best run counts.

    Ctrl-C stops the run after the current step and saves it; a second Ctrl-C stops it at once. In both cases, and
    after a crash, --resume continues from the last checkpoint.

    With --processes N, or under torchrun, N processes share the model and its optimizer, one GPU each if there are
    any. A run may be resumed with another number of them.
    """
    from envgym.runs.folder import RunFolder
    from envgym.runs.progress import duration

    if (recipe is None) == (resume is None):
        raise UserError("give either a recipe or --resume FOLDER, e.g. envgym train recipes/quickstart.toml")
    if resume is not None and (set_ or out or cluster):
        raise UserError(
            "--resume uses the run's own recipe: --set, --cluster and --out do not apply. For other settings, "
            f"begin a new run; --set model.path={shlex.quote(str(resume))} makes it go on from this one's weights"
        )
    if _place(processes).rank:
        path = recipe or RunFolder.existing(resume or Path()).path / "recipe.toml"
        read_stage(path, set_ or [], quiet=True).follow()
        return
    asked = [name.strip() for name in controls.split(",") if name.strip()]

    def chosen(stage: Stage) -> list[str]:
        return stage.controls(asked) if asked or with_controls else []

    started = time.monotonic()
    if resume is not None:
        report = _resume(resume, chosen)
    else:
        overrides = [*(set_ or []), *([f"cluster.name={cluster}"] if cluster else [])]
        report = _begin(recipe or Path(), overrides, out, chosen)
    print(f"finished in {duration(time.monotonic() - started)}; report: {report}")


def _begin(recipe: Path, overrides: list[str], out: Path | None, controls: Callable[[Stage], list[str]]) -> Path:
    from envgym.cli.run_folders import check_new, claimed, removed_if_unused
    from envgym.runs.folder import RunFolder

    place = out or Path("runs") / f"{recipe.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_new(place)
    stage = read_stage(recipe, overrides)
    names = controls(stage)
    stage.check()
    with removed_if_unused(place):
        folder = RunFolder.create(place, stage.config, stage.config.seed)
        with claimed(folder):
            return _run(stage, folder, names)


def _resume(place: Path, controls: Callable[[Stage], list[str]]) -> Path:
    from envgym.cli.run_folders import claimed
    from envgym.runs.folder import RunFolder

    folder = RunFolder.existing(place)
    stage = read_stage(folder.path / "recipe.toml", [])
    names = controls(stage)
    with claimed(folder):
        return _run(stage, folder, names)


def _place(processes: int | None) -> ProcessPlace:
    """Return the place of this process; where ``processes`` are asked for and not there, be their launcher.

    Raises:
        UserError: others were started than were asked for.
    """
    from envgym.cli.launcher import end_with_launcher, launch
    from envgym.runs.processes import process_place

    place = process_place()
    end_with_launcher()
    if processes is None or processes == place.size:
        return place
    if place.size > 1:
        raise UserError(f"--processes {processes}, but {place.size} were started already: leave it out")
    sys.exit(launch(processes, [sys.executable, "-m", "envgym", *sys.argv[1:]]))


def _run(stage: Stage, folder: RunFolder, controls: list[str]) -> Path:
    """Run a stage and the controls that were asked for, now or earlier; print their tables; return the report."""
    from envgym.runs.controls import controls_table, request_controls, requested_controls
    from envgym.runs.progress import Reporter
    from envgym.runs.report import render_report
    from envgym.runs.table import summary_table

    if controls:
        request_controls(folder, controls)
    with Reporter() as reporter:
        reporter.say(f"run folder: {folder.path}")
        resume = f"resume with: envgym train --resume {shlex.quote(str(folder.path))}"
        advice = f"what was saved is intact; {resume}"
        summary = run(stage.run(folder, reporter), reporter.say, advice=advice)
        if summary is None:
            sys.exit(STOPPED)
        for line in folder.damage.lines():
            reporter.say(f"warning: {line}")
        report = render_report(folder)
        print(summary_table(summary))
        if names := requested_controls(folder):
            record = run(stage.run_controls(folder, reporter, names), reporter.say, advice=advice)
            if record is None:
                sys.exit(STOPPED)
            report = render_report(folder)
            print(f"\n{controls_table(record)}")
    return report


def report_command(
    run: Annotated[Path, typer.Argument(help="a run's folder, finished or not")],
) -> None:
    """Write the report of a run: one self-contained HTML file."""
    from envgym.runs.folder import RunFolder
    from envgym.runs.report import render_report

    folder = RunFolder.existing(run)
    path = render_report(folder)
    for line in folder.damage.lines():
        print(f"warning: {line}", file=sys.stderr)
    print(path)


def read_stage(path: Path, overrides: list[str], *, quiet: bool = False) -> Stage:
    """Make the stage that a recipe names, with the recipe as its settings."""
    from envgym.cli.switching import drop_leftovers
    from envgym.config import apply_overrides, parse_overrides, read_recipe
    from envgym.runs.stage import Stage, stages

    values, changes = read_recipe(path), parse_overrides(overrides)
    for note in drop_leftovers(values, changes):
        if not quiet:
            print(f"note: {note}", file=sys.stderr)
    apply_overrides(values, changes)
    name = values.get("stage", Stage.Config().stage)
    if not isinstance(name, str):
        raise RecipeError(f"{path.name}: stage: must be one of {', '.join(stages.plugins())} (got {name!r:.80})")
    return stages.make(name, values, source=path.name)
