"""What a cluster costs and brings: calls a second, seconds a turn, and episodes of a busy environment at once.

    python benchmarks/cluster.py            # Ray on this machine against one process
    python benchmarks/cluster.py --json

One environment without a model. Idle, its turns show the overhead. Busy, it computes for ``--busy`` seconds of
processor time a turn, in Python, so that one process can use one core. Places alternate within a repeat; medians
and extremes over repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import pydantic

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.services import Services
from envgym.policies.scripted import EmptyPolicy
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.rollout.cluster import Cluster
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry
from envgym.testing import InProcessCluster
from envgym_clusters.ray import RayCluster


class Echo(ChatEnv):
    """Answers every turn with a message; ``busy`` is the processor time that it takes for it."""

    class Config(ChatEnv.Config):
        """How much it computes."""

        busy: float = pydantic.Field(default=0.0, ge=0, description="seconds of processor time a turn")

    config: Config

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return one task."""
        return [Task(id="t", split=split, messages=(Message(role="user", content="go on"),))]

    async def respond(self, action: Message) -> Reply:
        """Compute, and go on."""
        end = time.thread_time() + self.config.busy
        while time.thread_time() < end:
            sum(range(1000))
        return Reply(messages=(Message(role="user", content="go on"),))

    def score(self, trajectory: Trajectory) -> Score:
        """Return the number of turns."""
        return Score(value=1.0, accuracy=1.0, metrics={"turns": len(trajectory.turns)})


async def turns_per_second(cluster: Cluster | None, *, busy: float, episodes: int, turns: int) -> float:
    """Play ``episodes`` at once, and return the turns of all of them a second."""
    module = "cluster" if __name__ == "__main__" else __name__
    entry = MixEntry(env=f"{module}:Echo", name="e", settings={"busy": busy, "max_turns": turns})
    services = Services()
    collector = Collector([entry], EmptyPolicy(), services, concurrency=episodes, retries=0, cluster=cluster)
    (task,) = collector.tasks("e", "train")
    await collector.group("e", task, episodes)  # imports and instances
    started = time.perf_counter()
    group = await collector.group("e", task, episodes)
    seconds = time.perf_counter() - started
    played = sum(len(t.turns) for t in group.trajectories)
    if played != episodes * turns:
        raise SystemExit(f"{episodes * turns - played} turns are missing: {group.trajectories[0].outcome}")
    await collector.close()
    await services.close()
    return played / seconds


async def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every place, alternating."""
    places: dict[str, Cluster | None] = {
        "one process": None,
        "text": InProcessCluster(workers=1),
        "ray": RayCluster(workers=arguments.workers),
    }
    opened = time.perf_counter()
    for place in places.values():
        if place is not None:
            await place.open(Services())
    found: dict[str, Any] = {"open_seconds": time.perf_counter() - opened}
    try:
        for name, busy, episodes, turns in (
            ("one episode", 0.0, 1, arguments.turns),
            ("many episodes", 0.0, arguments.episodes, arguments.turns),
            ("busy", arguments.busy, arguments.episodes, 4),
        ):
            rates: dict[str, list[float]] = {place: [] for place in places}
            for _ in range(arguments.repeats):
                for place, cluster in places.items():
                    rate = await turns_per_second(cluster, busy=busy, episodes=episodes, turns=turns)
                    rates[place].append(rate)
            found[name] = {
                place: {"median": statistics.median(values), "min": min(values), "max": max(values)}
                for place, values in rates.items()
            }
            medians = {place: row["median"] for place, row in found[name].items()}
            found[name]["ray / one process"] = medians["ray"] / medians["one process"]
            found[name]["overhead_ms_a_turn"] = 1000 / medians["ray"] - 1000 / medians["one process"]
    finally:
        for place in places.values():
            if place is not None:
                await place.close()
    return found


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--workers", type=int, default=4, help="workers of Ray")
    parser.add_argument("--episodes", type=int, default=32, help="episodes at once")
    parser.add_argument("--turns", type=int, default=20, help="turns of an episode of the idle environment")
    parser.add_argument("--busy", type=float, default=0.02, help="seconds of processor time a busy turn takes")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each place")
    arguments = parser.parse_args()
    found = asyncio.run(compare(arguments))
    if arguments.json:
        print(json.dumps({**found, "settings": vars(arguments)}, indent=2))
        return
    print(f"opened in {found.pop('open_seconds'):.1f} s; turns a second")
    for name, row in found.items():
        cells = "  ".join(f"{k} {v['median']:,.0f}" for k, v in row.items() if isinstance(v, dict))
        print(f"{name:15} {cells}  ray / one process {row['ray / one process']:.2f}")


if __name__ == "__main__":
    main()
