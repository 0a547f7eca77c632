"""A copy of an environment is whole, or it is refused with the attribute that stands in the way."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from toys import Adder

from envgym.env.services import Services
from envgym.policies.scripted import Script
from envgym.records import Message, Task
from envgym.rollout.episode import rollout

Make = Callable[..., Adder]
Say = Callable[..., Message]


def test_copies_share_services_and_nothing_that_changes(adder: Make, say: Say) -> None:
    services = Services()
    env = adder("chatter", services=services)
    env.reset(seed=0)
    env.trajectory.artifacts["notes"] = ["one"]
    env.mine = {"self": env, "call": env.gold, "list": [1]}
    other: Any = copy.deepcopy(env)
    assert other.services.shared is services
    assert other.mine["self"] is other
    assert other.mine["call"].__self__ is other
    other.mine["list"].append(2)
    other.trajectory.artifacts["notes"].append("two")
    other.step(say("x"))
    assert env.mine["list"] == [1]
    assert env.trajectory.artifacts["notes"] == ["one"]
    assert env.trajectory.turns == []
    assert other.services.rng.random() == env.services.rng.random()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("held", [threading.Lock, lambda: (x for x in "ab"), lambda: open(__file__)])  # noqa: SIM115, PTH123
def test_what_cannot_be_copied_is_named(adder: Make, how: Callable[[Any], Any], held: Callable[[], Any]) -> None:
    env = adder()
    env.reset(seed=0)
    env.handle = held()
    with pytest.raises(TypeError, match="this Adder cannot be copied or pickled now: handle: "):
        how(env)
    if hasattr(env.handle, "close"):
        env.handle.close()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_an_environment_that_a_rollout_plays_is_refused(
    adder: Make, say: Say, how: Callable[[Any], Any]
) -> None:
    env = adder()
    policy = Script(say("", ("nap", {"seconds": 3600})))
    playing = asyncio.create_task(rollout(env, policy, env.task_list("train")[0], name="e", seed=0))
    await asyncio.sleep(0.1)
    with pytest.raises(TypeError, match="a rollout plays it"):
        how(env)
    playing.cancel()
    await asyncio.wait({playing})


def test_a_pickled_environment_keeps_its_settings_and_its_episode(adder: Make, say: Say) -> None:
    env = adder(numbers=5, max_turns=4, split="held_out", render_mode="ansi")
    env.reset(seed=3)
    env.step(say("", ("add", {"a": 1})))
    other = pickle.loads(pickle.dumps(env))  # noqa: S301 - written here
    assert (other.config, other.split, other.render()) == (env.config, env.split, env.render())
    right = str(env.trajectory.task.reference)
    assert other.step(say(right))[1] == env.step(say(right))[1] == 1.0


def test_a_task_that_is_none_is_refused(adder: Make) -> None:
    env = adder()
    with pytest.raises(Exception, match=r"options\['task'\] must be a Task, e.g. .*; got '1\+1'"):
        env.reset(options={"task": "1+1"})
    assert isinstance(env.task_list("train")[0], Task)
