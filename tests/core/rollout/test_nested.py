"""Nested episodes: played by whom the cast says, recorded, seeded, bounded by their parent, never left behind."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from company import Endless, Helper, Manager, task_of

from envgym.env.chat_env import Reply
from envgym.env.services import Services
from envgym.errors import PolicyError, UserError
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.policies.scripted import EmptyPolicy, Expert, Player, Script
from envgym.records import Message, Observation, OutcomeKind, Trajectory, TurnTokens, from_json, to_json
from envgym.rollout.collector import Collector, Group
from envgym.rollout.episode import rollout
from envgym.rollout.mix import MixEntry


@pytest.fixture(autouse=True)
def _forget_helpers() -> Iterator[None]:
    Helper.instances.clear()
    yield
    Helper.instances.clear()


def saying(text: str) -> Script:
    return Script(Message(role="assistant", content=text))


async def play(env: Manager, policy: Player | None = None, *, seed: int = 7, **options: Any) -> Trajectory:
    task = env.task_list("train")[0]
    return await rollout(env, policy or saying("hi"), task, name="m", seed=seed, **options)


class Sampler(Policy, PolicySession):
    """A model's policy: what it says carries tokens. It hangs where it is told to."""

    def __init__(self, text: str, hang: bool = False) -> None:
        super().__init__()
        self.text, self.hang = text, hang
        self.seeds: list[int] = []
        self.closes = 0

    def open(self, tools: Any, seed: int) -> PolicySession:
        self.seeds.append(seed)
        return self

    async def act(self, observation: Observation) -> Completion:
        await asyncio.sleep(3600 if self.hang and observation.messages else 0)
        tokens = TurnTokens(prompt_ids=[1], completion_ids=[2], logprobs=[-1.0], policy_version=0)
        return Completion(message=Message(role="assistant", content=self.text), tokens=tokens)

    async def close(self) -> None:
        self.closes += 1


async def test_a_nested_episode_is_played_scored_and_recorded() -> None:
    trajectory = await play(Manager())
    (nested,) = trajectory.nested
    assert trajectory.outcome.kind is nested.outcome.kind is OutcomeKind.COMPLETED
    assert (nested.env, nested.role, nested.reward, trajectory.reward) == ("Helper", "helper", 1.0, 1.0)
    assert nested.turns[0].action.content == "hi"
    assert from_json(Trajectory, to_json(trajectory)) == trajectory
    (helper,) = Helper.instances
    assert (helper.starts, helper.finishes, helper.closes) == (1, 1, 1)


async def test_the_policy_plays_every_role_that_nobody_else_is_named_for() -> None:
    """Roles reach all depths, and never the outermost episode."""
    named = {"other": saying("bye")}
    assert (await play(Manager(role="helper"), roles=named)).nested[0].final_text == "hi"
    other = await play(Manager(role="other"), roles=named)
    assert (other.nested[0].final_text, other.final_text) == ("bye", "hi")
    deep = await play(Manager(mode="itself"), roles={"helper": saying("bye")})
    assert [deep.nested[0].final_text, deep.nested[0].nested[0].final_text] == ["bye", "bye"]
    assert (await play(Manager(), Expert())).reward == 1.0


async def test_tokens_are_kept_of_the_policy_alone() -> None:
    """What another model sampled must not be trained on."""
    policy = Sampler("hi")
    assert [t.turns[0].tokens is None for t in (await play(Manager(), policy)).nested] == [False]
    trajectory = await play(Manager(), policy, roles={"helper": Sampler("hi")})
    assert trajectory.turns[0].tokens is not None
    assert [t.turns[0].tokens for t in trajectory.nested] == [None]


async def test_seeds_follow_from_the_parents_and_no_policy_is_told_the_episodes_seed() -> None:
    """Same seed, same draws of the environment and of every policy; another seed, others."""
    runs = []
    for seed in (7, 7, 8):
        env, policy = Manager(count=3, mode="gather"), Sampler("hi")
        trajectory = await play(env, policy, seed=seed)
        runs.append((env.draws, tuple(policy.seeds), tuple(t.seed for t in trajectory.nested)))
        assert len(set(policy.seeds)) == 4
        assert not set(policy.seeds) & {trajectory.seed, *(t.seed for t in trajectory.nested)}
    assert runs[0] == runs[1]
    assert all(a != b for a, b in zip(runs[0], runs[2], strict=True))


async def test_episodes_at_once_share_no_generator_and_no_record() -> None:
    alone = [(await play(Manager(), seed=i)).nested[0].seed for i in range(8)]
    envs = [Manager() for _ in range(8)]
    together = await asyncio.gather(*(play(env, seed=i) for i, env in enumerate(envs)))
    assert [t.nested[0].seed for t in together] == alone
    assert len({id(env.services) for env in envs}) == len({env.draws for env in envs}) == 8


async def test_a_nested_failure_makes_its_parent_missing_data_unless_the_author_decides() -> None:
    failed = await play(Manager(word="trouble"))
    assert failed.outcome.reason == "NestedEpisodeError: role 'helper': SandboxError: gone"
    assert math.isnan(failed.reward)
    assert [t.failed for t in failed.nested] == [True]
    decided = await play(Manager(word="trouble", failed_ok=True))
    assert decided.reward == 0.0
    assert decided.nested[0].failed
    assert [(h.starts, h.finishes, h.closes) for h in Helper.instances] == [(1, 1, 1)] * 2


async def test_a_policy_that_fails_in_a_role_is_a_nested_failure() -> None:
    class Down(EmptyPolicy):
        def open(self, tools: Any, seed: int) -> PolicySession:
            raise PolicyError("down")

    trajectory = await play(Manager(), roles={"helper": Down()})
    assert trajectory.outcome.reason == "NestedEpisodeError: role 'helper': PolicyError: down"


async def test_the_deadline_is_the_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that never answers costs no more than the parent has, and both are missing data."""
    env, started = Manager(), time.monotonic()
    trajectory = await play(env, Sampler("hi", hang=True), deadline=0.4)
    assert 0.3 < env.left <= 0.4
    assert time.monotonic() - started < 5
    # Both have one end: which of them notices first is a matter of microseconds.
    assert trajectory.failed
    assert trajectory.outcome.cause in ("EpisodeTimeout", "NestedEpisodeError")
    assert trajectory.nested[0].failed
    assert [(h.starts, h.finishes, h.closes) for h in Helper.instances] == [(1, 1, 1)]
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_the_parent_cancels_and_cleans_up_what_is_nested() -> None:
    policy = Sampler("hi", hang=True)
    playing = asyncio.ensure_future(play(Manager(mode="gather", count=2), policy))
    await asyncio.sleep(0.1)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert [(h.starts, h.finishes, h.closes) for h in Helper.instances] == [(1, 1, 1)] * 2
    assert policy.closes == 3
    assert len(asyncio.all_tasks()) == 1


async def test_a_nested_episode_that_never_began_is_recorded_as_failed() -> None:
    """The environment cannot be made, or the parent was cancelled before the first step."""

    class Picky(Manager):
        async def respond(self, action: Message) -> Reply:
            for env in ("company:Nobody", "company:Helper"):
                playing = asyncio.ensure_future(self.services.play(env, task_of("x"), role="helper"))
                await asyncio.sleep(0)
                playing.cancel()
                await asyncio.wait({playing})
                assert playing.cancelled() or isinstance(playing.exception(), UserError)
            return Reply(done=True)

    trajectory = await play(Picky(max_turns=1))
    assert [t.failed for t in trajectory.nested] == [True, True], trajectory.outcome
    assert all(h.starts == h.finishes and h.closes == 1 for h in Helper.instances)


async def test_what_an_author_does_not_wait_for_ends_with_the_episode() -> None:
    env = Manager(mode="forget")
    trajectory = await play(env, Sampler("hi", hang=True))
    assert not trajectory.failed
    assert trajectory.nested[0].failed
    assert [(h.finishes, h.closes) for h in Helper.instances] == [(1, 1)]
    await asyncio.wait({env.forgotten})
    with pytest.raises(Exception, match="after the episode that asked for it was over"):
        await env.services.play("company:Helper", task_of("late"), role="helper")


async def test_an_instance_plays_one_episode_at_a_time() -> None:
    with pytest.raises(UserError, match="this Helper already plays an episode: make an instance for each"):
        await play(Manager(mode="same", count=2), Sampler("hi"))
    assert (await play(Manager(mode="same", count=1))).reward == 1.0


async def test_episodes_that_nest_without_end_are_missing_data() -> None:
    trajectory = await play(Endless())
    assert "episodes are nested more than 4 deep" in trajectory.outcome.reason
    depth, inner = 0, trajectory
    while inner.nested:
        depth, inner = depth + 1, inner.nested[0]
    assert depth == 4


async def test_a_role_must_be_declared_and_played_by_somebody() -> None:
    with pytest.raises(UserError, match="no role 'extra' is declared: .* now: helper, other"):
        await play(Manager(role="extra"))
    env = Manager()
    await env.areset(seed=0)
    assert (env.left, env.services.depth) == (math.inf, 0)
    with pytest.raises(UserError, match="no policy plays the role 'helper': no rollout is under way"):
        await env.astep(Message(role="assistant", content="hi"))


async def test_outside_a_rollout_the_generator_is_seeded_too() -> None:
    env = Manager()
    draws = []
    for seed in (3, 3, 4, None, None):
        await env.areset(seed=seed)
        draws.append(env.draws)
    assert draws[0] == draws[1]
    assert len(set(draws)) == 4
    rolled = Manager()
    await play(rolled, seed=3)
    assert rolled.draws == draws[0]


async def test_one_slot_is_enough_for_episodes_that_play_others() -> None:
    """Nested episodes take no slot of the collector's, or two parents would wait for each other for ever."""
    entry = MixEntry(env="company:Manager", name="m", settings={"count": 2, "mode": "gather"})
    collector = Collector([entry], saying("bye"), Services(), concurrency=1, roles={"helper": saying("hi")})
    task = collector.tasks("m", "train")[0]
    group = await asyncio.wait_for(collector.group("m", task, 4), 20)
    assert group.rewards == [1.0] * 4
    assert {t.final_text for t in group.trajectories} == {"bye"}
    await collector.close()


def test_groups_by_role_hold_every_depth_and_what_failed() -> None:
    def made(role: str, *nested: Trajectory) -> Trajectory:
        return Trajectory(env="e", task=task_of("t"), role=role, nested=list(nested))

    first = made("", made("a", made("b")), made("b"))
    group = Group(env="e", task=task_of("t"), trajectories=[first, made(""), made("", made("a"))])
    by_role = group.by_role()
    assert list(by_role) == ["", "a", "b"]
    assert by_role[""] is group.trajectories
    assert [len(members) for members in by_role.values()] == [3, 2, 2]
    assert by_role["b"] == [first.nested[0].nested[0], first.nested[1]]
