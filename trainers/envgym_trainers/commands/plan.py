"""``envgym plan``: memory, time, sandboxes and disk that a recipe needs, before it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from envgym.cli.options import JsonFlag, Settings

if TYPE_CHECKING:
    from envgym_trainers.planning.devices import Device
    from envgym_trainers.planning.plan import Plan

__all__ = ["plan_command"]


def plan_command(
    recipe: Annotated[Path, typer.Argument(help="a recipe, e.g. recipes/quickstart.toml")],
    set_: Settings = None,
    gpu: Annotated[
        str, typer.Option(metavar="NAME", help="h200, h100, a100, l40s, rtx4090, or laptop for no GPU")
    ] = "laptop",
    gpus: Annotated[int, typer.Option(min=1, help="devices that share the trainer's state")] = 1,
    model_size: Annotated[
        str, typer.Option(metavar="SIZE", help="0.5B, 1.5B, 7B, 32B or 70B, in the place of the recipe's model")
    ] = "",
    tokens: Annotated[
        int | None, typer.Option(min=1, help="tokens of an episode; the whole context by default")
    ] = None,
    sampled: Annotated[
        int | None, typer.Option(min=1, help="those of them that the model writes; half by default")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a recipe needs, if it fits the devices, and what to change if not. Nothing is loaded or run.

    Sizes of weights are exact; everything else is an estimate for planning, from data sheets and assumed shares of
    them. docs/scale.md compares it with measured runs. Exit code 1: it does not fit.
    """
    from envgym.config import read_recipe, validate_settings
    from envgym.errors import UnknownNameError
    from envgym_trainers.models.load import load_config
    from envgym_trainers.planning.devices import DEVICES
    from envgym_trainers.planning.plan import load_of, plan_for
    from envgym_trainers.planning.shapes import shape_of, shape_of_size
    from envgym_trainers.recipe import ReinforcementRecipe
    from envgym_trainers.stages.rl import make_objective

    settings = validate_settings(ReinforcementRecipe, read_recipe(recipe, set_ or []), recipe.name)
    if gpu not in DEVICES:
        raise UnknownNameError("device", gpu, DEVICES)
    shape = shape_of_size(model_size) if model_size else shape_of(load_config(settings.model))
    objective = make_objective(settings.objective)
    device = DEVICES[gpu]
    load = load_of(settings, objective, shape, device, devices=gpus, tokens=tokens, sampled=sampled)
    plan = plan_for(settings, shape, load, device)
    if as_json:
        print(
            json.dumps({"device": gpu, "source": device.source, "parameters": shape.parameters, **plan.as_json()})
        )
    else:
        print(f"{model_size or settings.model.path}: {shape.parameters:,} parameters; {gpus} x {gpu}")
        print(_text(plan, device))
    if not plan.fits:
        sys.exit(1)


def _text(plan: Plan, device: Device) -> str:
    load, took = plan.load, plan.times
    lines = ["", "memory of each device, GB"]
    lines += [f"  {name:<18}{size / 1e9:>10.2f}" for name, size in plan.memory.items()]
    lines += [f"  {'together':<18}{plan.total / 1e9:>10.2f}   of {plan.usable / 1e9:.1f} usable", ""]
    lines += [
        f"a step of {load.episodes} episodes of {load.tokens:,} tokens, {load.sampled:,} of them sampled; seconds",
        f"  {'decoding':<18}{took.decoding:>10.1f}   floor {took.decoding_floor:.1f}",
        f"  {'prefill':<18}{took.prefill:>10.1f}",
        f"  {'learning':<18}{took.learning:>10.1f}",
        f"  {'together':<18}{took.step:>10.1f}   one after the other",
        f"  {took.sampled_rate:,.0f} tokens/s sampled; {took.needed_rate:,.0f} keep the learner busy",
        "",
        f"at once: {load.concurrency} conversations of {load.context:,} tokens, {plan.sandboxes} sandboxes, "
        f"{plan.judge_calls} calls of a judge",
        f"disk: {plan.disk / 1e9:.1f} GB of checkpoints",
        f"device: {device.source}",
        "",
    ]
    if plan.fits:
        return "\n".join([*lines, "it fits"])
    lines.append(f"it does not fit: {(plan.total - plan.usable) / 1e9:.1f} GB too much on each device")
    if not plan.changes:
        return "\n".join([*lines, "no single change is enough: take a smaller model, or several changes at once"])
    lines += ["each of these is enough:"]
    lines += [f"  {size / 1e9:>8.1f} GB  {change}" for change, size in plan.changes.items()]
    return "\n".join(lines)
