"""Episodes on workers are those of one process, whoever acts, whatever fails, and whoever dies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from company import Helper
from toys import Adder

from envgym.env.services import Services
from envgym.errors import PolicyError, UserError
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.policies.scripted import EmptyPolicy, Expert, Novice, Player, RandomPolicy
from envgym.records import Message, Observation, ToolCall, ToolSpec, Trajectory, TurnTokens, to_json
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry
from envgym.testing import InProcessCluster

Open = Callable[..., Collector]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    for kind in (Adder, Helper):
        kind.instances.clear()  # type: ignore[attr-defined]
    yield
    for kind in (Adder, Helper):
        kind.instances.clear()  # type: ignore[attr-defined]


@pytest.fixture
async def cluster() -> AsyncIterator[InProcessCluster]:
    made = InProcessCluster(workers=2)
    await made.open(Services())
    yield made
    await made.close()
    assert len(asyncio.all_tasks()) == 1


@pytest.fixture
async def collector() -> AsyncIterator[Open]:
    """``collector(env, policy, cluster=None, settings={})``: one environment, called ``e``."""
    made: list[Collector] = []

    def open_(env: str, policy: Player, cluster: InProcessCluster | None = None, **options: Any) -> Collector:
        entry = MixEntry(env=env, name="e", settings=options.pop("settings", {}))
        made.append(Collector([entry], policy, Services(), cluster=cluster, **{"retries": 0, **options}))
        return made[-1]

    yield open_
    for each in made:
        await each.close()


class Sampler(Policy):
    """A model's policy: it says what it saw, with tokens. ``act`` may be replaced to make trouble."""

    def __init__(self, act: Callable[[Observation], Any] | None = None) -> None:
        super().__init__()
        self.trouble = act
        self.opened: list[tuple[tuple[str, ...], int]] = []
        self.closed = 0

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        self.opened.append((tuple(t.name for t in tools), seed))
        return _Session(self, seed)


class _Session(PolicySession):
    def __init__(self, policy: Sampler, seed: int) -> None:
        self._policy = policy
        self._seed = seed
        self._turns = 0

    async def act(self, observation: Observation) -> Completion:
        self._turns += 1
        if self._policy.trouble is not None:
            found = self._policy.trouble(observation)
            if isinstance(found, Completion):
                return found
            if asyncio.iscoroutine(found):
                await found
        tokens = TurnTokens(prompt_ids=[self._turns], completion_ids=[2], logprobs=[-0.1], policy_version=3)
        calls = (ToolCall(name="add", arguments={"a": self._seed % 97}, id="c0"),) if observation.tools else ()
        message = Message(
            role="assistant", content=f"turn {self._turns}", tool_calls=calls if self._turns < 3 else ()
        )
        return Completion(message=message, tokens=tokens)

    async def close(self) -> None:
        self._policy.closed += 1


async def _play(collector: Collector, count: int = 4, policy: Player | None = None) -> list[Trajectory]:
    task = collector.tasks("e", "train")[0]
    return list(await asyncio.gather(*(collector.episode("e", task, i, policy=policy) for i in range(count))))


def _texts(played: Sequence[Trajectory]) -> list[str]:
    return [to_json(trajectory) for trajectory in played]


@pytest.mark.parametrize(
    ("env", "settings", "player", "roles"),
    [
        ("toys:Adder", {}, Sampler, {}),
        ("toys:Adder", {}, RandomPolicy, {}),
        ("toys:Adder", {}, Expert, {}),
        ("toys:Letter", {}, Novice, {}),
        ("toys:Adder", {"trouble": "chatter"}, Sampler, {}),
        ("toys:Adder", {"max_turns": 2}, Sampler, {}),
        ("toys:Adder", {"trouble": "respond"}, Sampler, {}),
        ("toys:Adder", {"trouble": "start"}, Sampler, {}),
        ("toys:Adder", {"trouble": "nan"}, Sampler, {}),
        ("toys:Adder", {"trouble": "finish"}, Sampler, {}),
        ("company:Manager", {}, Sampler, {}),
        ("company:Manager", {}, Expert, {}),
        ("company:Manager", {"mode": "gather", "count": 3}, Sampler, {}),
        ("company:Manager", {"mode": "gather", "count": 3}, Sampler, {"helper": Sampler}),
        ("company:Manager", {"mode": "same"}, Sampler, {"helper": Expert}),
        ("company:Manager", {"mode": "itself"}, Expert, {"helper": Sampler}),
        ("company:Manager", {"mode": "conclude"}, Sampler, {"helper": EmptyPolicy}),
        ("company:Manager", {"word": "trouble"}, Sampler, {}),
        ("company:Manager", {"word": "trouble", "failed_ok": True}, Sampler, {}),
        ("company:Endless", {}, Sampler, {}),
    ],
)
async def test_an_episode_on_a_worker_is_that_of_one_process(
    collector: Open,
    cluster: InProcessCluster,
    env: str,
    settings: dict[str, Any],
    player: Callable[[], Player],
    roles: Mapping[str, Callable[[], Player]],
) -> None:
    """Tokens, seeds, failures and nested episodes included, and what the policy was told of them."""
    found = []
    for place in (None, cluster):
        policy, cast = player(), {role: make() for role, make in roles.items()}
        played = await _play(collector(env, policy, place, settings=settings, roles=cast))
        acting = [p for p in (policy, *cast.values()) if isinstance(p, Sampler)]
        told = [(sorted(p.opened), p.closed == len(p.opened)) for p in acting]
        found.append((_texts(played), told))
    assert found[0] == found[1]


async def test_a_policy_without_room_truncates_the_episode(collector: Open, cluster: InProcessCluster) -> None:
    def full(observation: Observation) -> None:
        raise ContextFull

    (trajectory,) = await _play(collector("toys:Adder", Sampler(full), cluster), 1)
    assert trajectory.ending == "truncated: context"


async def test_a_policy_that_fails_makes_missing_data_and_is_closed(
    collector: Open, cluster: InProcessCluster
) -> None:
    def down(observation: Observation) -> None:
        raise PolicyError("down")

    def bug(observation: Observation) -> None:
        raise KeyError("layer")

    def surrogate(observation: Observation) -> Completion:
        return Completion(message=Message(role="assistant", content="half \ud800"))

    reasons = []
    for trouble in (down, bug, surrogate):
        policy = Sampler(trouble)
        (trajectory,) = await _play(collector("toys:Adder", policy, cluster), 1)
        assert policy.closed == 1
        reasons.append(trajectory.outcome.reason)
    assert reasons[:2] == ["PolicyError: down", "PolicyError: KeyError: 'layer'"]
    assert reasons[2].startswith("PolicyError: what it said cannot travel")
    assert [(a.starts, a.finishes) for a in Adder.instances if a.starts] == [(1, 1)] * 3


async def test_a_users_mistake_ends_the_run(collector: Open, cluster: InProcessCluster) -> None:
    with pytest.raises(UserError, match="set it right"):
        await collector("toys:Adder", Sampler(), cluster, settings={"trouble": "user"}).episode(
            "e", Adder().task_list("train")[0], 0
        )

    def refuse(observation: Observation) -> None:
        raise UserError("no such model")

    made = collector("toys:Adder", Sampler(refuse), cluster)
    with pytest.raises(UserError, match="no such model"):
        await made.episode("e", made.tasks("e", "train")[0], 0)


async def test_a_policy_that_hangs_costs_no_more_than_the_deadline(
    collector: Open, cluster: InProcessCluster
) -> None:
    """The record says how far the episode came."""
    policy = Sampler(lambda observation: asyncio.sleep(3600))
    (trajectory,) = await _play(collector("toys:Adder", policy, cluster, deadline=0.3), 1)
    assert trajectory.outcome.reason.startswith("EpisodeTimeout: in turn 1 after 0.3 s")
    assert policy.closed == 1


async def test_an_environment_that_hangs_costs_no_more_than_the_deadline(
    collector: Open, cluster: InProcessCluster
) -> None:
    made = collector("toys:Adder", Sampler(), cluster, settings={"trouble": "hang_start"}, deadline=0.3)
    (trajectory,) = await _play(made, 1)
    assert trajectory.outcome.reason.startswith("EpisodeTimeout: not begun after 0.3 s")


async def test_cancelling_ends_the_episode_on_the_worker(collector: Open, cluster: InProcessCluster) -> None:
    asked = asyncio.Event()

    async def hang(observation: Observation) -> None:
        asked.set()
        await asyncio.sleep(3600)

    policy = Sampler(lambda observation: hang(observation))
    made = collector("toys:Adder", policy, cluster)
    playing = asyncio.create_task(made.episode("e", made.tasks("e", "train")[0], 0))
    await asked.wait()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert policy.closed == 1
    assert [(a.starts, a.finishes) for a in Adder.instances if a.starts] == [(1, 1)]
    assert cluster.workers[0].busy == 0


@pytest.mark.parametrize("when", ["while the policy acts", "while the environment works"])
async def test_an_episode_of_a_dead_worker_is_played_again_and_counted_once(
    collector: Open, cluster: InProcessCluster, when: str
) -> None:
    """Every task has one trajectory, equal to the one that nobody disturbed but for the seed of the attempt."""
    killed = asyncio.Event()

    async def kill(observation: Observation) -> None:
        if not killed.is_set():
            killed.set()
            await cluster.workers[0].die()

    slow = {"trouble": "hang_start", "troubled": 4} if when == "while the environment works" else {}
    policy = Sampler(None if slow else lambda observation: kill(observation))
    made = collector("toys:Adder", policy, cluster, retries=1, settings=slow)
    playing = asyncio.create_task(_play(made, 6))
    if slow:
        await asyncio.sleep(0.1)
        assert not playing.done()
        for worker in cluster.workers:
            await worker.die()
    played = await playing
    assert [t.failed for t in played] == [False] * 6
    lost = made.counts["failed/WorkerLost"]
    assert lost > 0
    assert made.counts == {"episodes": 6 + lost, "failed": lost, "failed/WorkerLost": lost}
    assert policy.closed == len(policy.opened)
    assert [worker.busy for worker in cluster.workers] == [0, 0]


async def test_a_lost_worker_is_missing_data_where_no_attempt_is_left(
    collector: Open, cluster: InProcessCluster
) -> None:
    async def kill(observation: Observation) -> None:
        await cluster.workers[0].die()

    (trajectory,) = await _play(collector("toys:Adder", Sampler(lambda o: kill(o)), cluster), 1)
    assert trajectory.outcome.reason == ("WorkerLost: the worker died between two turns, and was started anew")
    assert math.isnan(trajectory.reward)


async def test_a_record_that_is_no_json_is_missing_data(collector: Open, cluster: InProcessCluster) -> None:
    class Opaque(Adder):
        async def start(self, task: Any) -> None:
            self.trajectory.artifacts["handle"] = object()  # type: ignore[assignment]

    globals()["Opaque"] = Opaque
    (trajectory,) = await _play(collector(f"{__name__}:Opaque", Expert(), cluster), 1)
    assert trajectory.outcome.reason.startswith("EnvironmentFailure: what it said cannot travel")


async def test_the_turnstile_counts_an_episode_as_waiting_only_while_its_policies_act(
    collector: Open, cluster: InProcessCluster
) -> None:
    """An engine that waits until everybody has asked, for equal runs, sees remote episodes as it sees others."""
    seen: list[bool] = []
    made: list[Collector] = []

    async def look(observation: Observation) -> None:
        seen.append(await made[0].turnstile.settled(patience=5))

    made.append(collector("company:Manager", Sampler(lambda o: look(o)), cluster, settings={"count": 2}))
    await _play(made[0], 3)
    assert seen == [True] * len(seen)
    assert len(seen) == 9
    assert await made[0].turnstile.settled(patience=1)
