"""``envgym check``: the quality gate of an environment."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer

from envgym.cli.options import (
    EnvironmentId,
    JsonFlag,
    JudgeAddress,
    JudgeSettings,
    Sandbox,
    Settings,
    entry_of,
    services_of,
)

__all__ = ["add_to"]

_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("check")(check_command)


def check_command(
    env: EnvironmentId,
    set_: Settings = None,
    episodes: Annotated[int, typer.Option(help="number of tasks of each split to play", min=1)] = 3,
    sandbox: Sandbox = "auto",
    judge: JudgeAddress = "",
    judge_set: JudgeSettings = None,
    as_json: JsonFlag = False,
) -> None:
    """Check an environment before anything is trained on it, and say how to mend each fault.

    Gold must score the maximum, and what deserves nothing the floor; nothing may raise; the same seed gives the
    same task, and the same episode the same score; splits are disjoint; tasks travel. Exit code 1: one fails.
    """
    from envgym.check import CHECKS, Subject
    from envgym.env.run_sync import run_sync
    from envgym.tasks.procedural import SPLITS

    entry = entry_of(env, set_)
    services = services_of(sandbox, judge, judge_set)
    found: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: run_sync(services.close()))
        made = stack.enter_context(contextlib.closing(entry.make(services)))
        for split in SPLITS:
            made.task_list(split)  # raises here on missing data or packages, which are not the environment's fault
        subject = Subject(make=lambda: entry.make(services), env=made, episodes=episodes)
        for check in CHECKS:
            faults = found[check.name] = check.faults(subject)
            if as_json:
                continue
            print(f"{'fails ' if faults else 'passes'}  {check.name}", flush=True)
            for fault in faults[:_SHOWN]:
                print(f"        {fault}")
            if faults[_SHOWN:]:
                print(f"        and {len(faults) - _SHOWN} more")
            if faults:
                print(f"        to mend it: {check.mend}")
    if as_json:
        print(json.dumps(found, indent=2))
    if any(found.values()):
        sys.exit(1)
