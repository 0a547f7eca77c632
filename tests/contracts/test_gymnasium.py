"""Every registered environment is an ordinary Gymnasium environment: made, rendered, copied and run in vectors."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from envgym.env.chat_env import ChatEnv
from envgym.env.registration import list_envs
from envgym.errors import UnknownNameError
from envgym.records import Message, Observation

COPIES: dict[str, Callable[[ChatEnv], ChatEnv]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),  # noqa: S301 - written here
}


def say(text: str) -> Message:
    return Message(role="assistant", content=text)


@pytest.fixture(params=list_envs())
def name(request: pytest.FixtureRequest) -> str:
    return f"envgym/{request.param}"


@pytest.fixture
def env(name: str) -> Iterator[gymnasium.Env[Observation, Message]]:
    made = gymnasium.make(name, render_mode="ansi")
    yield made
    made.close()


def test_gymnasiums_checkers_are_silent(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make(name, disable_env_checker=False)
        made.reset(seed=0)
        made.step(say("1"))
        check_env(made.unwrapped)
        made.close()


def test_it_renders_the_conversation_so_far(env: gymnasium.Env[Observation, Message]) -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.unwrapped.render()
    observation, _ = env.reset(seed=0)
    text: Any = env.render()
    assert all(message.content in text for message in observation.messages)
    env.step(say("\x1b[2Jmy answer"))
    text = env.render()
    assert r"\x1b[2Jmy answer" in text
    assert "\x1b" not in text


def test_without_a_render_mode_there_is_nothing_to_see(name: str) -> None:
    made = gymnasium.make(name)
    made.reset(seed=0)
    assert made.render() is None
    made.close()


@pytest.mark.parametrize("mode", ["human", "rgb_array", "ANSI", ""])
def test_other_render_modes_are_refused_with_what_is_allowed(name: str, mode: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown render mode '{mode}'; .*allowed: None, ansi"):
        gymnasium.make(name, render_mode=mode)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_in_mid_episode_goes_on_by_itself(env: gymnasium.Env[Observation, Message], how: str) -> None:
    env.reset(seed=0)
    original: Any = env.unwrapped
    other = COPIES[how](original)
    assert other.trajectory == original.trajectory
    assert other.running
    assert other.task_list("train")[0] == original.task_list("train")[0]
    results = [one.step(say("nonsense")) for one in (other, original)]
    assert results[0] == results[1]
    draws = [[one.reset()[1]["task_id"] for _ in range(3)] for one in (other, original)]
    assert draws[0] == draws[1]
    other.close()
    assert original.running


@pytest.mark.parametrize(
    ("key", "near"), [("tasks", "did you mean 'task'"), ("Task", "did you mean 'task'"), ("seed", "")]
)
def test_unknown_reset_options_are_refused_and_the_episode_goes_on(
    env: gymnasium.Env[Observation, Message], key: str, near: str
) -> None:
    env.reset(seed=0)
    with pytest.raises(UnknownNameError, match=f"unknown reset option '{key}'; {near}.*allowed: task"):
        env.reset(seed=0, options={key: None})
    env.step(say("1"))


@pytest.mark.parametrize("how", ["sync", "async"])
def test_vectors_play_as_single_environments_do(name: str, how: str) -> None:
    single = gymnasium.make(name)
    alone = [single.reset(seed=seed)[0] for seed in (3, 4)]
    many = gymnasium.make_vec(name, num_envs=2, vectorization_mode=how, render_mode="ansi")
    try:
        observations, info = many.reset(seed=3)
        assert list(observations) == alone
        assert len(set(info["task_id"])) == 2
        _, rewards, terminated, truncated, _ = many.step((say("1"), say("2")))
        assert len(rewards) == len(terminated) == len(truncated) == 2
        assert all(r"[assistant]" in text for text in many.render() or ())
    finally:
        many.close()
        single.close()
