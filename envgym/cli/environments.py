"""``envgym list``, ``show`` and ``rollout``: look at environments without training."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from envgym.cli.options import EnvironmentId, JsonFlag, Sandbox, Settings, SplitName
from envgym.cli.policies import PolicyName, open_policy
from envgym.config import parse_overrides
from envgym.core import ChatEnv
from envgym.data import Trajectory, to_json
from envgym.registry import environments
from envgym.registry import make as make_env
from envgym.rollout import rollout
from envgym.services import Services
from envgym.tasks import check_split

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("list")(list_command)
    app.command("show")(show_command)
    app.command("rollout")(rollout_command)


def list_command(as_json: JsonFlag = False) -> None:
    """List every environment that is installed."""
    plugins = environments.plugins().values()
    if as_json:
        rows = [{"id": p.name, "entry_point": p.entry_point, "distribution": p.distribution} for p in plugins]
        print(json.dumps(rows, indent=2))
        return
    width = max((len(p.name) for p in plugins), default=0)
    for plugin in plugins:
        print(f"{plugin.name:<{width}}  {plugin.entry_point}  ({plugin.distribution})")


def show_command(env: EnvironmentId, as_json: JsonFlag = False) -> None:
    """Show an environment: what it is, its settings, its tools."""
    kind: type[ChatEnv] = environments.load(env)
    made = make_env(env, services=Services())
    fields = kind.Settings.model_fields
    settings = {
        name: {"default": field.get_default(call_default_factory=True), "help": field.description or ""}
        for name, field in fields.items()
    }
    tools = {t.spec.name: t.spec.description for t in made.tools.values()}
    about = (kind.__doc__ or "").strip().split("\n\n")[0]
    if as_json:
        record = {"id": env, "about": about, "settings": settings, "tools": tools}
        print(json.dumps(record, indent=2, default=str))
        return
    print(f"{environments.find(env).name}\n{about}\n\nsettings (--set name=value)")
    for name, entry in settings.items():
        print(f"  {name} = {entry['default']!r}  {entry['help']}")
    print("\ntools")
    for name, text in tools.items():
        print(f"  {name}: {text}")
    print(f"\nrewards: {kind.reward_range[0]:g} to {kind.reward_range[1]:g}")
    print(f"needs a sandbox: {'yes' if kind.needs_sandbox else 'no'}")


def rollout_command(
    env: EnvironmentId,
    policy: PolicyName = "gold",
    split: SplitName = "held_out",
    index: Annotated[int, typer.Option(help="which task of the split", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="seeds the environment and the policy", min=0)] = 0,
    set_: Settings = None,
    sandbox: Sandbox = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Play one episode and print it."""
    trajectory = asyncio.run(_play(env, policy, split, index, seed, parse_overrides(set_ or []), sandbox))
    if as_json:
        print(to_json(trajectory))
        return
    for message in trajectory.messages:
        calls = "".join(f"\n  -> {c.name}({json.dumps(c.arguments)})" for c in message.tool_calls)
        print(f"[{message.role}] {message.content}{calls}")
    print(f"\noutcome: {trajectory.outcome.kind} {trajectory.outcome.reason}")
    if trajectory.score is not None:
        parts = ", ".join(f"{k} {v:g}" for k, v in trajectory.score.components.items())
        print(f"reward: {trajectory.reward:g}  ({parts})")


async def _play(
    env: str, policy: str, split: str, index: int, seed: int, settings: dict[str, Any], sandbox: str
) -> Trajectory:
    async with Services(sandbox=sandbox) as services:
        made = make_env(env, split=split, services=services, **settings)
        tasks = made.task_list(check_split(split))
        player = open_policy(policy)
        try:
            return await rollout(made, player, tasks[index % len(tasks)], name=env, seed=seed)
        finally:
            await player.close()
            await made.aclose()
