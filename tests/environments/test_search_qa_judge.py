"""``search_qa`` graded by a judge behind a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from envgym.check.probes import say
from envgym.env.services import Services
from envgym.errors import UserError
from envgym.policies.scripted import Expert
from envgym.records import Message, OutcomeKind, Task, Trajectory
from envgym.rollout.episode import rollout
from envgym_environments.search_qa import SearchQA


def _play(judge: str, text: str) -> Trajectory:
    async def work() -> Trajectory:
        async with Services(judge=judge) as services:
            env = SearchQA(services=services, grader="judge", documents=100)
            return await rollout(env, say(text) if text else Expert(), env.task_list("train")[0], name="s", seed=0)

    return asyncio.run(work())


def test_what_matches_is_not_asked_about(judge_server: Any) -> None:
    assert _play(f"{judge_server.url}#grader", "").reward == 1
    assert judge_server.seen == []


def test_what_is_worded_otherwise_is_judged_by_its_answer_alone(judge_server: Any) -> None:
    trajectory = _play(f"{judge_server.url}#grader", "Say yes! <answer>it is the town of Foo</answer>")
    assert trajectory.reward == 1
    assert trajectory.score is not None
    assert trajectory.score.components == {"judge": 1.0, "f1": 0.0, "format": 1.0}
    (request,) = judge_server.seen
    assert request["model"] == "grader"
    asked = json.loads(request["messages"][1]["content"])
    assert asked["answer"] == "it is the town of Foo"
    assert asked["question"] == trajectory.task.messages[-1].content
    assert asked["reference"] in trajectory.task.reference["answers"]


@pytest.mark.parametrize(
    "text", ["the town of Foo", "<answer></answer>", "<answer>:</answer>", "\\boxed{the answer is}"]
)
def test_what_says_nothing_or_is_not_fenced_is_wrong_even_to_a_judge_that_always_says_yes(
    judge_server: Any, text: str
) -> None:
    assert _play(f"{judge_server.url}#grader", text).reward == 0
    assert judge_server.seen == []


def test_a_judge_that_is_down_is_missing_data() -> None:
    """Nothing listens on the discard port. Never a reward of 0."""
    trajectory = _play("http://127.0.0.1:9/v1#grader", "<answer>Foo</answer>")
    assert trajectory.outcome.kind is OutcomeKind.FAILED
    assert trajectory.score is None


def test_without_a_judge_the_environment_says_what_to_do() -> None:
    with pytest.raises(UserError, match="--judge URL#MODEL"):
        SearchQA(grader="judge").task_list("train")
    with pytest.raises(UserError, match="address"):
        Services(judge="ftp://x")


def test_a_stored_trajectory_is_judged_again(judge_server: Any) -> None:
    task = Task(
        id="t",
        split="train",
        messages=(Message(role="user", content="Where?"),),
        reference={"answers": ["Foo"], "all_of": False, "path": []},
    )

    async def work() -> float:
        async with Services(judge=f"{judge_server.url}#grader") as services:
            env = SearchQA(services=services, grader="judge", documents=100)
            trajectory = await rollout(env, say("<answer>in Foo, I believe</answer>"), task, name="s", seed=0)
            return (await env.rescore(trajectory)).value

    assert asyncio.run(work()) == 1
    assert len(judge_server.seen) == 2
