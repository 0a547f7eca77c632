"""``envgym simulate``: a recipe's training loop without a model, to plan capacity and load-test environments."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from envgym.cli.interruption import run
from envgym.cli.options import JsonFlag, Settings
from envgym.cli.training import read_stage

__all__ = ["add_to"]

_POSITIVE = 1e-9


def add_to(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("simulate")(simulate_command)


def simulate_command(
    recipe: Annotated[Path, typer.Argument(help="a recipe, e.g. recipes/quickstart.toml")],
    tokens_per_second: Annotated[
        float,
        typer.Option(help="tokens that the engine samples in a second, over all conversations", min=_POSITIVE),
    ],
    step_seconds: Annotated[float, typer.Option(help="seconds of learning in a step", min=0)],
    conversation_tokens_per_second: Annotated[
        float, typer.Option(help="the same for a conversation that has the engine for itself", min=_POSITIVE)
    ] = math.inf,
    publish_seconds: Annotated[float, typer.Option(help="seconds to hand new weights to the engine", min=0)] = 0.0,
    tokens_per_turn: Annotated[
        float,
        typer.Option(
            help="mean tokens of a turn, drawn exponentially; 0 takes a quarter of the characters of what is said",
            min=0,
        ),
    ] = 0.0,
    signal_share: Annotated[
        float, typer.Option(help="share of groups that dynamic sampling would keep", min=0.01, max=1)
    ] = 1.0,
    policy: Annotated[str, typer.Option(help="who acts: gold, random, or as for envgym eval")] = "gold",
    steps: Annotated[int, typer.Option(help="steps to take; the first is not measured", min=2)] = 10,
    set_: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a recipe's training loop with real environments, tools and sandboxes, and no model.

    Sampling and learning take the time that the rates say; a script acts. It tells the steps an hour, how old the
    tokens would be, and whether trainer, engine or environments hold up the others. Nothing is written.
    """
    from envgym.runs.progress import Reporter
    from envgym.runs.simulation import SimulatedLoad, simulation_table

    load = SimulatedLoad(
        tokens_per_second=tokens_per_second,
        step_seconds=step_seconds,
        steps=steps,
        conversation_tokens_per_second=conversation_tokens_per_second,
        publish_seconds=publish_seconds,
        tokens_per_turn=tokens_per_turn,
        signal_share=signal_share,
        policy=policy,
    )
    stage = read_stage(recipe, set_ or [])
    with Reporter() as reporter:
        report = run(stage.simulate(load, reporter), reporter.say)
    print(json.dumps(report, indent=2) if as_json else simulation_table(report))
