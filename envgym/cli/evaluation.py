"""``envgym eval``: score any policy on any environments."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from envgym.cli.options import JsonFlag, Sandbox, Settings, SplitName
from envgym.cli.policies import PolicyName, open_policy
from envgym.collect import Collector
from envgym.config import parse_overrides
from envgym.data import Trajectory
from envgym.evaluate import EnvScores, evaluate, mean_interval
from envgym.mix import MixEntry
from envgym.progress import Reporter
from envgym.services import Services
from envgym.tasks import check_split

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("eval")(eval_command)


def eval_command(
    env: Annotated[list[str], typer.Option(help="environment id; repeat or separate by commas for several")],
    policy: PolicyName,
    split: SplitName = "held_out",
    limit: Annotated[int, typer.Option(help="tasks per environment", min=1)] = 100,
    samples: Annotated[int, typer.Option(help="episodes per task", min=1)] = 1,
    set_: Settings = None,
    sandbox: Sandbox = "auto",
    seed: Annotated[int, typer.Option(help="seeds environments and sampling", min=0)] = 0,
    temperature: Annotated[float, typer.Option(help="of sampling; 0 is greedy", min=0)] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="sampled tokens per turn", min=1)] = 96,
    context: Annotated[int, typer.Option(help="tokens of a whole conversation", min=16)] = 512,
    concurrency: Annotated[int, typer.Option(help="episodes in flight", min=1)] = 64,
    as_json: JsonFlag = False,
) -> None:
    """Score a policy on the first tasks of a split, with 95% intervals over tasks."""
    checked = check_split(split)
    settings = parse_overrides(set_ or [])
    names = [name for item in env for name in item.split(",") if name]
    entries = [MixEntry(env=name, settings=settings) for name in names]

    async def work() -> dict[str, EnvScores]:
        async with Services(sandbox=sandbox) as services:
            player = open_policy(
                policy,
                temperature=temperature,
                max_tokens=max_tokens,
                context=context,
                concurrency=concurrency,
            )
            collector = Collector(entries, player, services, seed=seed, concurrency=concurrency)
            try:
                labels = [entry.label for entry in entries]
                total = samples * sum(min(limit, len(collector.tasks(n, checked))) for n in labels)
                with Reporter() as reporter:
                    reporter.begin("evaluate", total)

                    def note(_: Trajectory) -> None:
                        reporter.advance()

                    return await evaluate(
                        collector, labels, split=checked, limit=limit, samples=samples, on_episode=note
                    )
            finally:
                await collector.close()
                await player.close()

    scores = asyncio.run(work())
    records = {label: _record(s) for label, s in scores.items()}
    if as_json:
        print(json.dumps({"policy": policy, "split": split, "seed": seed, "environments": records}, indent=2))
        return
    for label, record in records.items():
        reward, accuracy = record["reward"], record["accuracy"]
        print(f"{label}: reward {_text(reward)}  accuracy {_text(accuracy)}  n {reward['n']}", end="")
        print(f"  failed {record['failed_episodes']}  turns {record['turns_mean']:.1f}")


def _record(scores: EnvScores) -> dict[str, Any]:
    return {
        "reward": mean_interval(list(scores.rewards.values())).as_dict(),
        "accuracy": mean_interval(list(scores.accuracies.values())).as_dict(),
        "episodes": scores.episodes,
        "failed_episodes": scores.failed,
        "turns_mean": scores.turns / max(1, scores.episodes),
        "sampled_tokens": scores.tokens,
    }


def _text(interval: dict[str, Any]) -> str:
    if interval["mean"] is None:
        return "missing"
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
