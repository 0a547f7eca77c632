"""``envgym engine``: what an inference server can do for training."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated, Any

import typer

from envgym.cli.interruption import run
from envgym.cli.options import JsonFlag
from envgym.plugins.spec import PluginSpec

__all__ = ["add_to"]

_EXAMINE = PluginSpec(
    name="engine doctor",
    entry_point="envgym_trainers.engine.server.doctor:examine",
    distribution="envgym",
    extras=("train",),
)
"""The core imports none of the trainer's before it is asked for."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(help="Look at what samples for training.", no_args_is_help=True)
    group.callback()(_group)
    group.command("doctor")(doctor_command)
    app.add_typer(group, name="engine")


def _group() -> None:
    """Keep the name of the only command."""


def doctor_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="address of a server, e.g. http://127.0.0.1:8000")],
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="variable that holds the server's key, if it wants one")
    ] = "ENVGYM_API_KEY",
    as_json: JsonFlag = False,
) -> None:
    """Report what an inference server can and cannot do for training, and how to start it so that it can.

    Nothing is changed on it; a few tokens are sampled. Exit code 1: no recipe can train against it as it is.
    """
    findings: list[Any] = run(_EXAMINE.load()(url, key_env))
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark = "ok" if finding.works else "NO" if finding.needed else "no"
            print(f"{mark:<3} {finding.what:<{width}}  {finding.found}")
            if finding.remedy:
                print(f"{'':<{width + 6}}{finding.remedy}")
    if any(finding.needed and not finding.works for finding in findings):
        sys.exit(1)
