"""What every registered environment must do, with its default settings.

An environment that is installed is tested: nothing here names one.
"""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from envgym.core import ChatEnv
from envgym.data import Message, Split, Task, ToolCall, Trajectory, content_hash, from_json, to_json
from envgym.policy import Completion, EmptyPolicy, GoldPolicy, Policy, PolicySession, RandomPolicy
from envgym.registry import list_envs, make
from envgym.rollout import rollout

SPLITS: tuple[Split, ...] = get_args(Split)
EPISODES = 3
"""Per split, where every episode may need a sandbox."""
GARBAGE = (
    "",
    " \n\t",
    "garbage",
    "\x00\ud7ff\U0001f600",
    "<answer>",
    "<answer></answer>",
    "<answer>?</answer>",
    "\\boxed{",
    "\\boxed{}",
    "</think>",
    "(" * 5000,
    "9" * 5000,
    "<answer>" + "9**" * 3000 + "9</answer>",
    "<tool_call>{}</tool_call>",
)
BAD_CALLS = (
    ToolCall(name="no_such_tool"),
    ToolCall(name=""),
    ToolCall(name="x", error="the tool call is not valid JSON"),
    ToolCall(name="__init__", arguments={"self": 1}),
)


@pytest.fixture(params=list_envs(), scope="module")
def env_id(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def env(env_id: str) -> Iterator[ChatEnv]:
    made = make(env_id)
    yield made
    made.close()


@pytest.fixture(params=SPLITS)
def tasks(request: pytest.FixtureRequest, env: ChatEnv) -> Sequence[Task]:
    some: Sequence[Task] = env.task_list(request.param)[:EPISODES]
    return some


class Say(Policy):
    """Says one message, then nothing."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        return _Saying([self._message])


class _Saying(PolicySession):
    def __init__(self, actions: list[Message]) -> None:
        self._actions = actions

    async def act(self, observation: Any) -> Completion:
        empty = Message(role="assistant", content="")
        return Completion(message=self._actions.pop(0) if self._actions else empty)


def play(env: ChatEnv, policy: Policy, task: Task, seed: int = 0) -> Trajectory:
    trajectory = asyncio.run(rollout(env, policy, task, name="contract", seed=seed, deadline=120))
    assert not trajectory.failed, trajectory.outcome
    assert trajectory.score is not None
    low, high = env.reward_range
    assert math.isfinite(trajectory.score.value)
    assert low <= trajectory.score.value <= high
    assert 0 <= trajectory.score.accuracy <= 1
    return trajectory


def say(text: str, calls: tuple[ToolCall, ...] = ()) -> Say:
    return Say(Message(role="assistant", content=text, tool_calls=calls))


def test_gold_scores_the_maximum(env: ChatEnv, tasks: Sequence[Task]) -> None:
    for task in tasks:
        trajectory = play(env, GoldPolicy(), task)
        assert trajectory.score is not None
        assert trajectory.score.value == env.reward_range[1], trajectory
        assert trajectory.score.accuracy == 1


def test_empty_and_echoing_policies_score_the_floor(env: ChatEnv, tasks: Sequence[Task]) -> None:
    for task in tasks:
        echo = "\n".join(m.content for m in task.messages)
        for policy in (EmptyPolicy(), say(echo), say(task.messages[-1].content), say(f"<answer>{echo}</answer>")):
            assert play(env, policy, task).reward == env.reward_range[0]


def test_garbage_scores_the_floor_and_never_raises(env: ChatEnv) -> None:
    task = env.task_list("train")[0]
    for text in GARBAGE:
        assert play(env, say(text), task).reward == env.reward_range[0], text


def test_calls_that_cannot_be_run_are_answered(env: ChatEnv) -> None:
    """Unknown tools, unreadable calls, and every tool with wrong arguments."""
    wrong = [ToolCall(name=name, arguments=a) for name in env.tools for a in ({}, {"no such": [1]})]
    for call in (*BAD_CALLS, *wrong):
        trajectory = play(env, say("", (call,)), env.task_list("train")[0])
        assert trajectory.reward == env.reward_range[0]
        assert trajectory.turns[1].messages[0].content.startswith("error: ")


def test_random_actions_stay_within_the_rules(env: ChatEnv, tasks: Sequence[Task]) -> None:
    for seed, task in enumerate(tasks):
        play(env, RandomPolicy(), task, seed=seed)


def test_equal_seeds_draw_equal_tasks(env_id: str) -> None:
    first, second = make(env_id), make(env_id)
    draws = [[e.reset(seed=s)[1]["task_id"] for s in (1, 2, 3)] for e in (first, second)]
    assert first.trajectory is not None
    assert second.trajectory is not None
    assert draws[0] == draws[1]
    assert first.trajectory.task == second.trajectory.task
    first.close()
    second.close()


def test_the_observation_holds_the_prompt_and_nothing_of_the_reference(
    env: ChatEnv, tasks: Sequence[Task]
) -> None:
    for task in tasks:
        observation, info = env.reset(seed=0, options={"task": task})
        assert observation.messages == task.messages
        assert set(info) == {"task_id"}
        assert env.observation_space.contains(observation)
    env.reset(seed=0)


def test_replay_and_rescoring_give_the_same_score(env: ChatEnv, tasks: Sequence[Task]) -> None:
    """Also of a trajectory that was written to disk and read again."""
    for policy in (GoldPolicy(), RandomPolicy()):
        first = play(env, policy, tasks[0], seed=1)
        again = play(env, policy, tasks[0], seed=1)
        assert again.messages == first.messages
        assert again.score == first.score
        stored = from_json(Trajectory, to_json(first))
        rescored = env.score(stored)
        assert (asyncio.run(_wait(rescored)) if asyncio.iscoroutine(rescored) else rescored) == first.score


async def _wait(work: Any) -> Any:
    return await work


def test_splits_are_disjoint(env: ChatEnv) -> None:
    train, held_out = (env.task_list(split)[:300] for split in SPLITS)
    assert {t.split for t in train} == {"train"}
    assert {t.split for t in held_out} == {"held_out"}
    assert not {t.id for t in train} & {t.id for t in held_out}
    assert not {content_hash(t) for t in train} & {content_hash(t) for t in held_out}


def test_a_spec_and_its_tasks_travel(env_id: str, env: ChatEnv, tasks: Sequence[Task]) -> None:
    """An episode elsewhere needs the id, the settings and the task."""
    name, settings, task = pickle.loads(pickle.dumps((env_id, env.settings.model_dump(), tasks[0])))  # noqa: S301
    assert from_json(Task, to_json(task)) == tasks[0]
    other = make(name, **settings)
    assert other.settings == env.settings
    assert other.task_list(task.split)[0] == tasks[0]
    other.close()


def test_an_episode_can_be_abandoned_and_the_environment_closed_twice(env_id: str) -> None:
    env = make(env_id)
    env.reset(seed=0)
    env.reset(seed=1)
    env.close()
    env.close()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(Message(role="assistant", content=""))


def test_gymnasium_makes_it_and_its_checker_passes(env_id: str) -> None:
    made = gymnasium.make(f"envgym/{env_id}")
    check_env(made.unwrapped, skip_render_check=True)
    made.close()
