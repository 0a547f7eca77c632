"""``envgym eval``: score any policy on any environments."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from envgym.cli.interruption import run
from envgym.cli.options import (
    ClusterName,
    ClusterSettings,
    JsonFlag,
    JudgeAddress,
    JudgeSettings,
    PolicyName,
    PolicySettings,
    Sandbox,
    Settings,
    SplitName,
    cluster_of,
    entry_of,
    services_of,
)
from envgym.errors import UserError
from envgym.redaction import redacted

if TYPE_CHECKING:
    from envgym.evaluate import EnvScores
    from envgym.policies.scripted import Player
    from envgym.records import Split, Trajectory
    from envgym.rollout.collector import Collector
    from envgym.rollout.mix import MixEntry
    from envgym.runs.failures import Failures

__all__ = ["add_to"]


_LIMITS = {"context": "context", "max_tokens": "turns of at most"}
"""Words for the limits of a policy."""


def add_to(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("eval")(eval_command)


def eval_command(
    env: Annotated[list[str], typer.Option(help="environment id; repeat or separate by commas for several")],
    policy: PolicyName,
    policy_set: PolicySettings = None,
    split: SplitName = "held_out",
    limit: Annotated[int, typer.Option(help="tasks per environment", min=1)] = 100,
    samples: Annotated[int, typer.Option(help="episodes per task", min=1)] = 1,
    set_: Settings = None,
    sandbox: Sandbox = "auto",
    judge: JudgeAddress = "",
    judge_set: JudgeSettings = None,
    seed: Annotated[int, typer.Option(help="seeds environments and sampling", min=0)] = 0,
    temperature: Annotated[float, typer.Option(help="of a policy that samples; 0 is greedy", min=0)] = 1.0,
    max_tokens: Annotated[
        int | None, typer.Option(help="sampled tokens per turn; the model's or the server's own by default", min=1)
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="tokens of a whole conversation; the model's own by default, if memory allows", min=16),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="episodes in flight", min=1)] = 64,
    cluster: ClusterName = "",
    cluster_set: ClusterSettings = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a policy on the first tasks of a split, with 95% intervals over tasks.

    Why episodes failed is told on standard error, and in JSON. Exit code 1: an environment has no score, because
    all of its episodes failed.
    """
    from envgym.config import parse_settings
    from envgym.policies.selection import make_player
    from envgym.rollout.collector import Collector
    from envgym.runs.failures import Failures
    from envgym.tasks.procedural import check_split

    checked = check_split(split)
    entries, placed = _entries(env, set_), cluster_of(cluster, cluster_set)
    sampling = {"temperature": temperature, "concurrency": concurrency}
    sampling |= {name: n for name, n in (("max_tokens", max_tokens), ("context", context)) if n is not None}
    failures = Failures()

    async def work() -> tuple[dict[str, EnvScores], float | None, dict[str, int]]:
        async with services_of(sandbox, judge, judge_set) as services, placed.opened(services) as workers:
            player = make_player(policy, parse_settings(policy_set or []), sampling)
            collector = Collector(entries, player, services, seed=seed, concurrency=concurrency, cluster=workers)
            try:
                labels = [entry.label for entry in entries]
                scores = await _watched(collector, labels, failures, split=checked, limit=limit, samples=samples)
                return scores, _temperature_of(player), _limits_of(player)
            finally:
                await collector.close()
                await player.close()

    with _told(failures):
        scores, used, taken = run(work())
    records = {label: {**_record(s), "failures": failures.records(label)} for label, s in scores.items()}
    if as_json:
        about = {"policy": redacted(policy), "split": split, "seed": seed, "temperature": used, "limits": taken}
        print(json.dumps({**about, "environments": records}, indent=2))
    else:
        _print_table(_how(used, taken, samples), records, limit)
    if not all(s.rewards for s in scores.values()):
        sys.exit(1)


@contextlib.contextmanager
def _told(failures: Failures) -> Iterator[None]:
    """Tell why episodes failed, however the work ends."""
    try:
        yield
    finally:
        for line in failures.lines():
            print(line, file=sys.stderr)


def _print_table(how: str, records: Mapping[str, dict[str, Any]], limit: int) -> None:
    from envgym.runs.table import wrapped

    print(wrapped(how))
    for label, record in records.items():
        print("\n".join(_lines(label, record, limit)))


def _how(temperature: float | None, limits: dict[str, int], samples: int) -> str:
    """Say how the episodes were sampled."""
    said = [] if temperature is None else [f"temperature {temperature:g}"]
    said += [f"{_LIMITS[name]} {value:,} tokens" for name, value in limits.items()]
    return ", ".join([*said, f"{samples} episode{'s' if samples > 1 else ''} per problem"])


def _entries(env: list[str], settings: list[str] | None) -> list[MixEntry]:
    entries = [entry_of(name.strip(), settings) for item in env for name in item.split(",") if name.strip()]
    labels = [entry.label for entry in entries]
    if not entries or len(set(labels)) != len(labels):
        raise UserError(f"--env must name environments, each of them once; it names {', '.join(labels) or 'none'}")
    return entries


def _temperature_of(player: Player) -> float | None:
    """Return the temperature that a policy samples at, whoever set it; ``None`` where it has no such setting."""
    from envgym.policies.interface import Policy

    found = getattr(player.config, "temperature", None) if isinstance(player, Policy) else None
    return float(found) if isinstance(found, int | float) else None


def _limits_of(player: Player) -> dict[str, int]:
    from envgym.policies.interface import Policy

    return dict(player.limits) if isinstance(player, Policy) else {}


async def _watched(
    collector: Collector,
    labels: Sequence[str],
    failures: Failures,
    *,
    split: Split,
    limit: int,
    samples: int,
) -> dict[str, EnvScores]:
    """Evaluate, show progress as episodes end, and note why some failed."""
    from envgym.evaluate import distinct, evaluate
    from envgym.runs.progress import Reporter
    from envgym.runs.tally import Tally

    tally = Tally()
    with Reporter() as reporter:
        total = samples * sum(len(distinct(collector.tasks(label, split), limit)) for label in labels)
        reporter.begin("evaluate", total)

        def note(trajectory: Trajectory) -> None:
            tally.add(trajectory)
            failures.add(trajectory)
            reporter.advance(str(tally))

        return await evaluate(collector, labels, split=split, limit=limit, samples=samples, on_episode=note)


def _record(scores: EnvScores) -> dict[str, Any]:
    return {
        "reward": scores.interval().as_dict(),
        "accuracy": scores.accuracy().as_dict(),
        "parts": {name: scores.part(name).as_dict() for name in scores.parts},
        "problems": len(scores.rewards),
        "episodes": scores.episodes,
        "failed_episodes": scores.failed,
        "ended": scores.ended,
        "turns_mean": scores.turns / max(1, scores.episodes),
        "sampled_tokens": scores.tokens,
    }


def _lines(label: str, record: dict[str, Any], limit: int) -> Iterator[str]:
    from envgym.runs.table import endings_text, interval_text, terminal_width, wrapped

    reward, accuracy = interval_text(record["reward"]), interval_text(record["accuracy"])
    counts = f"n {record['reward']['n']}  turns {record['turns_mean']:.1f}"
    cut = endings_text(record["ended"])
    parts = [f"reward {reward}", f"accuracy {accuracy}", counts, *([f"({cut})"] if cut else [])]
    line = f"{label}: {'  '.join(parts)}"
    if len(line) <= terminal_width():
        yield line
    else:
        yield f"{label}:"
        yield from (wrapped(part, "  ") for part in parts)
    for name, part in record["parts"].items():
        yield wrapped(f"{name} {interval_text(part)}  n {part['n']}", "  ")
    if record["problems"] < limit and not cut:
        yield wrapped(
            f"note: the split holds {record['problems']} distinct problems, fewer than --limit {limit}", "  "
        )
