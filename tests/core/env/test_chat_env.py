"""``ChatEnv`` keeps Gymnasium's rules, and frees what an episode took exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from toys import Adder

from envgym.env.chat_env import ChatEnv
from envgym.env.spaces import ActionSpace
from envgym.errors import DataError, EnvironmentFailure, UserError, VerifierError
from envgym.records import Message, Observation, OutcomeKind, Score, Split, Task, Trajectory, TurnTokens

Make = Callable[..., Adder]
Say = Callable[..., Message]


def test_a_single_turn_environment_needs_tasks_and_score_alone() -> None:
    class Parrot(ChatEnv):
        """Say it again."""

        def tasks(self, split: Split) -> list[Task]:
            return [Task(id="a", split=split, messages=(Message(role="user", content="hello"),))]

        def score(self, trajectory: Trajectory) -> Score:
            right = float(trajectory.final_text == trajectory.task.messages[-1].content)
            return Score(value=right, accuracy=right)

    env = Parrot()
    check_env(env, skip_render_check=True)
    observation, info = env.reset(seed=0)
    assert observation == Observation(messages=(Message(role="user", content="hello"),))
    assert info == {"task_id": "a"}
    _, reward, terminated, truncated, info = env.step(Message(role="assistant", content="hello"))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["score"] == Score(value=1.0, accuracy=1.0)


def test_gymnasiums_checker_passes(adder: Make) -> None:
    env = adder()
    # The checker draws actions; a draw of the tool that is broken on purpose ends an episode, as it should.
    env.action_space = ActionSpace(tuple(t.spec for t in env.tools.values() if t.spec.name != "broken"))
    check_env(env, skip_render_check=True)


def test_what_an_author_must_write_is_named() -> None:
    env = ChatEnv()
    for call in (lambda: env.tasks("train"), lambda: env.score(None), lambda: env.gold(None)):  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError, match="ChatEnv must define"):
            call()


def test_the_order_of_calls_is_gymnasiums(adder: Make, say: Say) -> None:
    env = adder()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(say("1"))
    env.reset(seed=0)
    env.step(say("1"))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(say("1"))
    env.reset()
    env.close()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(say("1"))


@pytest.mark.parametrize("action", ["4", None, Message(role="user", content="4")])
def test_what_is_no_action_is_refused_and_the_episode_goes_on(adder: Make, say: Say, action: Any) -> None:
    env = adder()
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match="an action is an assistant Message"):
        env.step(action)
    env.step(say("1"))
    assert len(env.trajectory.turns) == 1


def test_equal_seeds_draw_equal_tasks_and_no_seed_goes_on(adder: Make) -> None:
    env, other = adder(), adder()
    draws = [[e.reset(seed=s)[1]["task_id"] for s in (5, None, None)] for e in (env, other)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 1


def test_a_task_may_be_chosen(adder: Make) -> None:
    env = adder(split="held_out")
    task = env.task_list("train")[3]
    assert env.reset(options={"task": task})[1] == {"task_id": task.id}
    assert env.trajectory.task is task


def test_an_environment_without_tasks_says_so(adder: Make) -> None:
    with pytest.raises(DataError, match="Adder has no train task"):
        adder(empty=True).reset(seed=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "test"}, "unknown split 'test'"),
        ({"max_turn": 1}, "did you mean 'max_turns'"),
        ({"max_turns": 0}, "max_turns: .* greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_refused(adder: Make, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        adder(**arguments)


def test_tool_calls_are_answered_and_a_message_without_one_ends(adder: Make, say: Say) -> None:
    env = adder()
    task = env.task_list("train")[0]
    env.reset(seed=0, options={"task": task})
    observation, reward, terminated, truncated, info = env.step(say("", ("add", {"a": 2, "b": 3})))
    assert [(m.role, m.content, m.tool_call_id) for m in observation.messages] == [("tool", "5", "call_0")]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["tool_calls"] == 1
    _, reward, terminated, truncated, _ = env.step(say(str(task.reference)))
    assert (reward, terminated, truncated) == (1.0, True, False)


def test_rewards_of_turns_are_kept_and_added(adder: Make, say: Say) -> None:
    env = adder("chatter", max_turns=3)
    env.reset(seed=0)
    steps = [env.step(say("x")) for _ in range(3)]
    assert [s[1] for s in steps] == [0.25, 0.25, 0.25]
    assert [s[3] for s in steps] == [False, False, True]
    assert env.trajectory.reward == 0.75
    assert [t.metrics for t in env.trajectory.turns] == [{"chat": 1.0}] * 3
    assert env.trajectory.closing[0].content == "go on"
    assert env.trajectory.outcome.reason == "turns"


def test_a_cut_action_truncates_and_is_not_answered(adder: Make, say: Say) -> None:
    env = adder()
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(say("", ("broken", {}), cut=True))
    assert (terminated, truncated) == (False, True)
    assert info["outcome"].reason == "tokens"


async def test_tokens_are_kept_as_given(adder: Make, say: Say) -> None:
    env = adder()
    await env.areset(seed=0)
    tokens = TurnTokens(prompt_ids=[1], completion_ids=[2], logprobs=[-0.5], policy_version=7)
    await env.astep(say("1"), tokens)
    assert env.trajectory.turns[0].tokens is tokens


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        ("not_a_score", EnvironmentFailure, "score\\(\\) must return a Score, got float"),
        ("nan", VerifierError, "not a number: nan"),
        ("endless", VerifierError, "not a number"),
        ("score", KeyError, "answer"),
    ],
)
def test_a_score_that_is_none_ends_the_episode_with_an_error(
    adder: Make, say: Say, trouble: str, error: type[Exception], words: str
) -> None:
    env = adder(trouble)
    env.reset(seed=0)
    with pytest.raises(error, match=words):
        env.step(say("1"))
    assert env.finishes == 1
    assert env.trajectory.score is None


def test_an_episode_is_finished_once_however_it_ends(adder: Make, say: Say) -> None:
    env = adder()
    env.reset(seed=0)
    assert env.finishes == 0
    env.step(say("1"))
    env.reset(seed=1)
    env.reset(seed=2)  # abandons the second
    env.close()  # abandons the third
    env.close()
    assert env.starts == env.finishes == 3


def test_a_reset_that_fails_begins_no_episode_and_is_cleaned_up(adder: Make, say: Say) -> None:
    env = adder("start")
    with pytest.raises(RuntimeError, match="no power"):
        env.reset(seed=0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(say("1"))
    env.close()
    assert env.starts == env.finishes == 1


async def test_synchronous_calls_work_inside_a_running_loop(adder: Make, say: Say) -> None:
    env = adder()
    env.reset(seed=0)
    assert env.step(say("", ("sleep", {"seconds": 0.0})))[0].messages[0].content == "slept"
    env.close()
    assert env.finishes == 1


async def test_truncation_by_the_caller_scores_what_there_is(adder: Make) -> None:
    env = adder()
    with pytest.raises(gymnasium.error.ResetNeeded):
        await env.truncate("context")
    observation, _ = await env.areset(seed=0)
    _, reward, terminated, truncated, info = await env.truncate("context")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["outcome"].kind is OutcomeKind.TRUNCATED
    assert env.trajectory.closing == observation.messages


def test_episodes_of_many_environments_wait_side_by_side(adder: Make, say: Say) -> None:
    """Thirty naps of 0.5 s take far less than 15 s."""

    async def play(env: Adder) -> str:
        await env.areset(seed=0)
        observation = (await env.astep(say("", ("nap", {"seconds": 0.5}))))[0]
        return observation.messages[-1].content

    async def every_one() -> list[str]:
        return await asyncio.gather(*(play(adder()) for _ in range(30)))

    started = time.monotonic()
    assert asyncio.run(every_one()) == ["slept"] * 30
    assert 0.5 <= time.monotonic() - started < 10
