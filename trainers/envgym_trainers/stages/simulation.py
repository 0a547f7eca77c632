"""Train without a model: real environments and the real loop, under given rates, to see where a recipe waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envgym.policies.selection import make_player
from envgym.rollout.collector import Collector, Group
from envgym.rollout.mix import Mix
from envgym.runs.progress import Reporter
from envgym.runs.simulation import SimulatedLoad
from envgym_trainers.objectives import Objective
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.asynchronous import make_source
from envgym_trainers.stages.groups import GroupPlayer
from envgym_trainers.stages.paced import Pace, paced
from envgym_trainers.stages.setup import open_collector, open_environments
from envgym_trainers.stages.steps import Step, Steps

__all__ = ["simulate"]

_LOOK_SECONDS = 0.05
"""Time between two looks at what is in flight."""


class _SignalPlayer(GroupPlayer):
    """Plays groups whose rewards differ as often as they are said to; those of a script never do."""

    def __init__(self, share: float, *parts: Any) -> None:
        super().__init__(*parts)
        self._share, self._rng = share, random.Random(0)

    def success(self, group: Group) -> list[float]:
        """Return made-up success of each member."""
        differ = self._rng.random() < self._share
        return [float(differ and i == 0) for i in range(len(group.trajectories))]


@dataclass(slots=True)
class _Looks:
    """Numbers of episodes in flight and of those that sample, at regular times."""

    in_flight: list[int] = field(default_factory=list)
    sampling: list[int] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def at(self, collector: Collector, pace: Pace) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                self.in_flight.append(collector.in_flight)
                self.sampling.append(pace.sampling)
                await asyncio.sleep(_LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


async def simulate(
    recipe: ReinforcementRecipe, objective: Objective, load: SimulatedLoad, reporter: Reporter
) -> dict[str, Any]:
    """Run the recipe's loop under ``load``; return what ``simulation_table`` prints.

    Raises:
        UserError: the recipe cannot be carried out here.
        TooManyFailures: more episodes failed than the recipe allows.
    """
    pace = Pace(
        load.tokens_per_second,
        each=load.conversation_tokens_per_second,
        mean=load.tokens_per_turn,
        seed=recipe.seed,
    )
    # A run that ends begins less and less: it is measured as if it went on.
    recipe = recipe.model_copy(update={"steps": load.steps + recipe.asynchronous.max_staleness + 1})
    player = paced(make_player(load.policy), pace)

    async def learn(groups: Sequence[Group], number: int) -> dict[str, float]:
        await asyncio.sleep(load.step_seconds)
        return {}

    async def publish(version: int) -> None:
        await asyncio.sleep(load.publish_seconds)
        pace.publish(version)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(player.close)
        environments = await stack.enter_async_context(open_environments(recipe, reporter))
        collector = await stack.enter_async_context(open_collector(recipe, environments, player))
        sizes = {entry.label: len(collector.tasks(entry.label, "train")) for entry in environments.entries}
        mix = Mix(environments.entries, sizes, recipe.seed)
        groups = _SignalPlayer(load.signal_share, recipe, objective, collector, mix)
        source = await stack.enter_async_context(make_source(recipe, groups))
        steps = Steps(source, learn, publish)
        reporter.begin("step", load.steps)
        await steps.take()
        reporter.advance()
        looks, began, earlier = _Looks(), time.monotonic(), Counter(collector.counts)
        tokens, waited = pace.tokens, pace.seconds
        taken: list[Step] = []
        async with looks.at(collector, pace):
            while steps.done < load.steps:
                taken.append(await steps.take())
                reporter.advance()
        reporter.end()
        seconds = time.monotonic() - began
        ended = Counter(collector.counts)
        ended.subtract(earlier)
        return {
            **_work(taken, seconds, pace.seconds - waited, ended),
            **_flow(taken, seconds, pace.tokens - tokens, looks, load),
        }


def _work(taken: Sequence[Step], seconds: float, sampling: float, ended: Mapping[str, int]) -> dict[str, Any]:
    """Return what was done, and how long episodes took.

    Args:
        taken: the steps.
        seconds: their time.
        sampling: time that episodes waited for their tokens meanwhile, all added up.
        ended: the collector's counts of the episodes that ended meanwhile.
    """
    played = [t for step in taken for t in step.collected.trajectories]
    times = sorted(t.seconds for t in played) or [0.0]
    ages: Counter[int] = Counter()
    for step in taken:
        for group in step.collected.groups:
            for tokens in (turn.tokens for t in group.trajectories for turn in t.turns if turn.tokens):
                ages.update(step.number - 1 - version for version in tokens.versions)
    each = sampling / max(1, ended["episodes"])
    mean = statistics.fmean(times)
    return {
        "steps": len(taken),
        "seconds": seconds,
        "steps_per_hour": 3600 * len(taken) / seconds,
        "episodes": ended["episodes"],
        "episodes_per_hour": 3600 * ended["episodes"] / seconds,
        "episodes_failed": ended["failed"],
        "episode_seconds": {
            "mean": mean,
            "p50": times[len(times) // 2],
            "p99": times[int(0.99 * (len(times) - 1))],
            "max": times[-1],
            "sampling": each,
            "environment": max(0.0, mean - each),
        },
        "staleness": {str(age): n / ages.total() for age, n in sorted(ages.items())},
    }


def _flow(
    taken: Sequence[Step], seconds: float, tokens: int, looks: _Looks, load: SimulatedLoad
) -> dict[str, Any]:
    """Return what was in flight, and who waited."""
    return {
        "tokens_per_second": tokens / seconds,
        "in_flight": {
            "mean": statistics.fmean(looks.in_flight),
            "max": max(looks.in_flight),
            "sampling": statistics.fmean(looks.sampling),
        },
        "shares": {
            "trainer_waits": sum(step.sampling_seconds for step in taken) / seconds,
            "engine_capacity": tokens / seconds / load.tokens_per_second,
            "engine_idle": looks.sampling.count(0) / len(looks.sampling),
            "collection_idle": looks.in_flight.count(0) / len(looks.in_flight),
        },
    }
