"""To run out of tokens, context or turns never pays more than to finish, also where it is scored as it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.env.registration import environments
from envgym.env.run_sync import run_sync
from envgym.env.services import Services
from envgym.policies.scripted import Script
from envgym.records import Message, OutcomeKind, Task, Trajectory
from envgym.testing.play import play

_NAMES = ("math_problems", "code_sandbox", "search_qa", "refusal_safety", "proof_checker")


def _worth(trajectory: Trajectory) -> float:
    """The most that training may take a truncated episode for."""
    assert trajectory.score is not None
    return max(score.value for score in (trajectory.score, trajectory.score.as_it_stands) if score)


def _cut(
    env: ChatEnv, task: Task, actions: Sequence[Message], limit: Literal["tokens", "context"]
) -> list[Trajectory]:
    """Play the actions once for each, cut in that one, whose text and calls are complete."""
    return [
        play(env, Script(*actions[:i], dataclasses.replace(actions[i], cut=True, cut_by=limit)), task)
        for i in range(len(actions))
    ]


@pytest.mark.parametrize("name", _NAMES)
def test_to_be_cut_never_pays_more_than_to_finish(name: str) -> None:
    """The expert's actions and the beginner's, cut anywhere, are worth no more than when played to the end."""
    services = Services()
    env, short = (
        environments.make(f"{name}-v1", {"size": 12, **turns}, services=services)
        for turns in ({}, {"max_turns": 1})
    )
    for task in env.task_list("train")[:6]:
        for actions in (env.gold(task), env.novice(task)):
            finished = play(env, Script(*actions), task)
            cut = [t for limit in ("tokens", "context") for t in _cut(env, task, actions, limit)]
            if len(actions) > 1:
                cut.append(play(short, Script(*actions), task))
            for trajectory in cut:
                assert trajectory.outcome.kind is OutcomeKind.TRUNCATED
                assert _worth(trajectory) <= _worth(finished), (task.id, trajectory.outcome)
    env.close()
    short.close()
    run_sync(services.close())
