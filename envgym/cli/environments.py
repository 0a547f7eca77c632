"""``envgym show`` and ``rollout``: look at environments without training."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from envgym.cli.interruption import run
from envgym.cli.options import (
    EnvironmentId,
    JsonFlag,
    JudgeAddress,
    JudgeSettings,
    PolicyName,
    PolicySettings,
    Sandbox,
    Settings,
    SplitName,
    entry_of,
    services_of,
)
from envgym.errors import UserError

if TYPE_CHECKING:
    from envgym.env.chat_env import ChatEnv
    from envgym.env.services import Services
    from envgym.policies.scripted import Player
    from envgym.records import Trajectory
    from envgym.rollout.mix import MixEntry

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("show")(show_command)
    app.command("rollout")(rollout_command)


def show_command(env: EnvironmentId, as_json: JsonFlag = False) -> None:
    """Show an environment: its description, settings and tools."""
    from envgym.env.registration import environments
    from envgym.env.services import Services

    name = environments.find(env).name
    kind: type[ChatEnv] = environments.load(env)
    made = kind(services=Services())
    fields = kind.Config.model_fields
    settings = {
        name: {"default": field.get_default(call_default_factory=True), "help": field.description or ""}
        for name, field in fields.items()
    }
    tools = {t.spec.name: t.spec.description for t in made.tools.values()}
    about = (kind.__doc__ or "").strip().split("\n\n")[0]
    if as_json:
        record = {
            "id": name,
            "about": about,
            "settings": settings,
            "tools": tools,
            "reward_range": kind.reward_range,
            "needs_sandbox": kind.needs_sandbox,
            "roles": kind.roles,
        }
        print(json.dumps(record, indent=2, default=str))
        return
    print(f"{name}\n{about}\n\nsettings (--set name=value)")
    for setting, entry in settings.items():
        print(f"  {setting} = {entry['default']!r}  {entry['help']}")
    print("\ntools" if tools else "\nno tools")
    for tool, text in tools.items():
        print(f"  {tool}: {text}")
    print(f"\nrewards: {kind.reward_range[0]:g} to {kind.reward_range[1]:g}")
    print(f"needs a sandbox: {'yes' if kind.needs_sandbox else 'no'}")
    if kind.roles:
        print(f"roles: {', '.join(kind.roles)}")


def rollout_command(
    env: EnvironmentId,
    policy: PolicyName = "gold",
    policy_set: PolicySettings = None,
    split: SplitName = "held_out",
    index: Annotated[int, typer.Option(help="index of the task in the split", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="seeds the environment and the policy", min=0)] = 0,
    set_: Settings = None,
    sandbox: Sandbox = "auto",
    judge: JudgeAddress = "",
    judge_set: JudgeSettings = None,
    as_json: JsonFlag = False,
) -> None:
    """Play one episode and print it. Exit code 1: the episode failed, and has no reward."""
    from envgym.config import parse_settings
    from envgym.policies.selection import make_player
    from envgym.records import to_json

    player = make_player(policy, parse_settings(policy_set or []))
    services = services_of(sandbox, judge, judge_set)
    trajectory = run(_play(entry_of(env, set_), player, split, index, seed, services))
    if as_json:
        print(
            json.dumps(json.loads(to_json(trajectory)))
        )  # in ASCII, so that the guard of the terminal changes nothing
    else:
        _print(trajectory)
    if trajectory.failed:
        sys.exit(1)


def _print(trajectory: Trajectory) -> None:
    for message in trajectory.messages:
        calls = "".join(f"\n  -> {c.name}({json.dumps(c.arguments)})" for c in message.tool_calls)
        print(f"[{message.role}] {message.content}{calls}")
    print(f"\noutcome: {trajectory.outcome.kind} {trajectory.outcome.reason}")
    if trajectory.score is not None:
        parts = ", ".join(f"{k} {v:g}" for k, v in trajectory.score.components.items())
        print(f"reward: {trajectory.reward:g}  ({parts})")
    for nested in trajectory.nested:
        print(f"\n-- {nested.role} in {nested.env}")
        _print(nested)


async def _play(
    entry: MixEntry, player: Player, split: str, index: int, seed: int, shared: Services
) -> Trajectory:
    from envgym.rollout.episode import rollout
    from envgym.tasks.procedural import check_split

    async with shared as services:
        made = entry.make(services)
        tasks = made.task_list(check_split(split))
        if index >= len(tasks):
            raise UserError(f"--index {index}: {entry.label} has {len(tasks)} {split} tasks, counted from 0")
        try:
            return await rollout(made, player, tasks[index], name=entry.label, seed=seed)
        finally:
            await player.close()
            await made.aclose()
