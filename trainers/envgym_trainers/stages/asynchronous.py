"""Play groups while the model learns, and hand them to its steps under a bound of staleness."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import Any, Self

from envgym.errors import UserError
from envgym.records import from_json, to_json
from envgym.rollout.collector import Group
from envgym_trainers.objectives.ops.dynamic_sampling import AtCap, Signal, signal, spent_message
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.groups import GroupPlayer, GroupSource
from envgym_trainers.stages.step_groups import Disturbances, StepGroups
from envgym_trainers.stages.steps import Source
from envgym_trainers.stages.window import Place, Window

__all__ = ["AsynchronousSource", "make_source"]


def make_source(recipe: ReinforcementRecipe, player: GroupPlayer, done: int = 0) -> Source:
    """Return the source of groups that the recipe asks for, after so many steps ``done``."""
    bound = recipe.asynchronous.max_staleness
    if not bound:
        return GroupSource(player)
    return AsynchronousSource(player, max_staleness=bound, steps=recipe.steps, version=done)


class AsynchronousSource(Source):
    """Plays groups in tasks of its own, between the steps and while they learn; use as a context manager.

    Each environment has a window of its own, so that the mix keeps its quotas. With dynamic sampling a group
    without a signal makes room for another at once; ``max_attempts`` counts what ends between two steps, and
    running ahead takes the place of ``oversample``.

    Args:
        player: plays the groups.
        max_staleness: number of versions that a trained token may be behind the weights that it trains.
        steps: number of steps of the run; nothing is begun for those after them.
        version: version of the current weights, which is the number of steps done.
    """

    def __init__(self, player: GroupPlayer, *, max_staleness: int, steps: int, version: int = 0) -> None:
        self._player = player
        self._bound = max_staleness
        self._steps = steps
        self._version = version
        self._windows = {label: Window[Group](max_staleness, version) for label in player.mix.entries}
        self._running: set[asyncio.Task[None]] = set()
        self._since = StepGroups()
        """What has ended since the last step."""
        self._disturbances = Disturbances()
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._planned = version
        """Number of the first step whose quotas are not planned."""
        self._busy, self._busy_since = 0.0, 0.0

    async def __aenter__(self) -> Self:
        """Begin to play."""
        for label, window in self._windows.items():
            for place in window.places:
                if place.group is None:
                    self._begin(label, place)
        self._launch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is under way."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def ready(self) -> int:
        """Number of groups that have finished and wait for a step."""
        return sum(len(window.finished) for window in self._windows.values())

    @property
    def busy_seconds(self) -> float:
        """Seconds in which at least one group was under way."""
        return self._busy + (time.monotonic() - self._busy_since if self._running else 0.0)

    async def collect(self) -> StepGroups:
        """Wait until the next step can be taken, and return its groups; see ``Source.collect``."""
        chosen = self._chosen()
        while chosen is None:
            self._changed.clear()
            await self._changed.wait()
            chosen = self._chosen()
        result, self._since = self._since, StepGroups()
        for label, window in self._windows.items():
            counts = result.counters.setdefault(label, Counter())
            need = window.need
            taken = window.take(chosen[label])
            if len(taken) < need and self._at_cap is AtCap.RAISE:
                raise UserError(spent_message(len(taken), need, counts))
            result.groups += taken
            counts["surplus"] = len(window.finished)
        result.counters = {label: counts for label, counts in result.counters.items() if counts.total()}
        result.conclude(self._player.recipe, self._disturbances)
        self._disturbances = Disturbances()
        self._launch()
        return result

    def published(self, version: int) -> None:
        """Learn that the engine has the weights ``version``, and begin groups under them."""
        self._version = version
        self._launch()

    @property
    def _at_cap(self) -> AtCap | None:
        return self._player.settings.at_cap if self._player.settings else None

    def _chosen(self) -> dict[str, list[Place[Group]]] | None:
        """Return the groups of the next step by environment; ``None`` while one has to wait."""
        if self._failure is not None:
            raise self._failure
        chosen: dict[str, list[Place[Group]]] = {}
        for label, window in self._windows.items():
            found = window.choose(fewer=self._spent(label))
            if found is None:
                return None
            chosen[label] = found
        return chosen

    def _spent(self, label: str) -> bool:
        """Return true if no more groups may be played for the next step."""
        settings, window = self._player.settings, self._windows[label]
        if settings is None or not window.quotas:
            return False
        ended = self._since.counters.get(label, Counter())["generated"]
        return ended >= settings.max_attempts * max(1, window.need)

    def _launch(self) -> None:
        """Begin what may be begun, that of the earlier steps first.

        Raises:
            UserError: there is no task to begin.
        """
        last = min(self._version + self._bound, self._steps - 1)
        while self._planned <= last:
            for label, quota in self._player.mix.quotas(self._player.recipe.groups).items():
                self._windows[label].plan([quota])
            self._planned += 1
        for step in range(self._version, last + 1):
            for label, window in self._windows.items():
                if not self._spent(label):
                    for _ in range(window.wanted(step)):
                        self._begin(label, window.begin(self._version, self._player.draw(label)))

    def _begin(self, label: str, place: Place[Group]) -> None:
        if not self._running:
            self._busy_since = time.monotonic()
        task = asyncio.create_task(self._play(label, place))
        self._running.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._running:
            self._busy += time.monotonic() - self._busy_since
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
        self._changed.set()

    async def _play(self, label: str, place: Place[Group]) -> None:
        group = await self._player.play(label, *place.draw)
        verdict = signal(self._player.success(group))
        self._since.generated.append(group)
        counts = self._since.counters.setdefault(label, Counter())
        counts["generated"] += 1
        counts[verdict.value] += 1
        if _oldest(group) < place.born:
            counts["stale"] += 1
            self._windows[label].discard(place)
        elif self._player.settings is not None and verdict is not Signal.KEPT:
            self._windows[label].discard(place)
        else:
            place.group = group
        self._launch()

    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """Return what writes down the groups that have ended, and the tasks of those under way.

        These are begun again when a run goes on from it; see ``Source.snapshot``.
        """
        mix, ended = self._player.mix.state(), list(self._since.generated)
        counters = {label: dict(counts) for label, counts in self._since.counters.items()}
        quotas = {label: window.quotas for label, window in self._windows.items()}
        places = {label: [replace(place) for place in window.places] for label, window in self._windows.items()}

        def write() -> dict[str, Any]:
            index = {id(group): i for i, group in enumerate(ended)}
            return {
                "mix": mix,
                "quotas": quotas,
                "since": {"groups": [to_json(group) for group in ended], "counters": counters},
                "places": {label: [_stored(place, index) for place in kept] for label, kept in places.items()},
            }

        return write

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue; see ``Source.restore``.

        What was under way is begun again behind what had finished, for it samples from newer weights.
        """
        self._player.mix.restore(state["mix"])
        since = state["since"]
        self._since = StepGroups(
            generated=[from_json(Group, text) for text in since["groups"]],
            counters={label: Counter(counts) for label, counts in since["counters"].items()},
        )
        quotas, places = state["quotas"], state["places"]
        steps = max(map(len, quotas.values()), default=0)
        self._planned = self._version + steps
        for label, window in self._windows.items():
            window.plan(quotas.get(label, [0] * steps))  # an environment that could not run before has none
            stored = places.get(label, ())
            for place in (place for place in stored if place["group"] is not None):
                window.begin(place["born"], tuple(place["draw"])).group = self._read(place["group"])
            for place in (place for place in stored if place["group"] is None):
                window.begin(self._version, tuple(place["draw"]))

    def _read(self, stored: str | int) -> Group:
        return self._since.generated[stored] if isinstance(stored, int) else from_json(Group, stored)


def _stored(place: Place[Group], ended: Mapping[int, int]) -> dict[str, Any]:
    """Return what a checkpoint keeps of a place: a group that has ``ended`` since the last step by its index."""
    group: str | int | None = None
    if place.group is not None:
        group = ended.get(id(place.group))
        group = to_json(place.group) if group is None else group
    return {"born": place.born, "draw": place.draw, "group": group}


def _oldest(group: Group) -> float:
    """Return the oldest version that sampled a token of the group; infinity if nothing was sampled."""
    members = chain.from_iterable(group.by_role().values())
    versions = (turn.tokens.policy_version for t in members for turn in t.turns if turn.tokens)
    return min(versions, default=float("inf"))
