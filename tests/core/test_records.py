"""Records survive storage: whatever a trajectory holds comes back from its JSON."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from damage import damage_json, damage_text
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.records import (
    SCHEMA,
    Message,
    Observation,
    Outcome,
    OutcomeKind,
    Score,
    Task,
    ToolCall,
    ToolSpec,
    Trajectory,
    Turn,
    TurnTokens,
    VersionSpan,
    from_json,
    problem_key,
    to_json,
)

TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
CALLS = st.builds(ToolCall, name=TEXT, arguments=OBJECT, id=TEXT, error=st.none() | TEXT)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=TEXT,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    tool_call_id=TEXT,
    cut=st.booleans(),
    reasoning=TEXT,
)
SPOKEN = st.lists(MESSAGES, max_size=2).map(tuple)
TASKS = st.builds(
    Task,
    id=TEXT,
    split=st.sampled_from(["train", "held_out"]),
    messages=SPOKEN,
    reference=JSON,
    difficulty=NUMBER,
    metadata=OBJECT,
)
METRICS = st.dictionaries(TEXT, NUMBER, max_size=2)
TOKENS = st.builds(
    TurnTokens,
    prompt_ids=st.lists(st.integers(0, 2**31), max_size=3),
    completion_ids=st.lists(st.integers(0, 2**31), max_size=3),
    logprobs=st.lists(NUMBER, max_size=3),
    policy_version=st.integers(0, 10),
    fork=st.booleans(),
    spans=st.lists(st.builds(VersionSpan, st.integers(0, 10), st.integers(0, 10)), max_size=3),
)
TURNS = st.builds(
    Turn, messages=SPOKEN, action=MESSAGES, reward=NUMBER, metrics=METRICS, tokens=st.none() | TOKENS
)
TRAJECTORIES = st.builds(
    Trajectory,
    env=TEXT,
    task=TASKS,
    seed=st.integers(-1, 2**63),
    tools=st.lists(st.builds(ToolSpec, name=TEXT, description=TEXT, parameters=OBJECT), max_size=1).map(tuple),
    turns=st.lists(TURNS, max_size=2),
    closing=SPOKEN,
    outcome=st.builds(Outcome, kind=st.sampled_from(OutcomeKind), reason=TEXT),
    score=st.none() | st.builds(Score, value=NUMBER, accuracy=NUMBER, components=METRICS, metrics=METRICS),
    artifacts=OBJECT,
    seconds=NUMBER,
)


def a_task(**fields: Any) -> Task:
    prompt = (Message(role="system", content="be brief"), Message(role="user", content="1 + 1?"))
    return Task(**{"id": "t", "split": "train", "messages": prompt, **fields})


def turn(text: str, reward: float = 0.0, tokens: TurnTokens | None = None) -> Turn:
    asked = (Message(role="user", content="?"),)
    return Turn(messages=asked, action=Message(role="assistant", content=text), reward=reward, tokens=tokens)


@settings(deadline=None, max_examples=25)
@given(TASKS)
def test_a_task_comes_back_from_its_json(task: Task) -> None:
    assert from_json(Task, to_json(task)) == task


@settings(deadline=None, max_examples=25)
@given(TRAJECTORIES)
def test_a_trajectory_comes_back_from_one_line_of_strict_json(trajectory: Trajectory) -> None:
    text = to_json(trajectory)
    assert "\n" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert from_json(Trajectory, text) == trajectory


def test_a_record_from_before_weights_changed_in_mid_turn_is_read() -> None:
    text = '{"prompt_ids": [1], "completion_ids": [2, 3], "logprobs": [-0.5, -1.0], "policy_version": 4}'
    tokens = from_json(TurnTokens, text)
    assert (tokens.spans, tokens.versions) == ([], [4, 4])
    assert "spans" not in to_json(tokens), "and is written as it was"


def test_numbers_that_json_cannot_write_come_back() -> None:
    odd = Trajectory(env="e", task=a_task(), turns=[turn("a", reward=math.inf)])
    odd.turns[0].metrics = {"loss": math.nan, "low": -math.inf}
    read = from_json(Trajectory, to_json(odd))
    assert read.turns[0].reward == math.inf
    assert math.isnan(read.turns[0].metrics["loss"])
    assert read.turns[0].metrics["low"] == -math.inf


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}', '{"id":"a","split":"test","messages":[]}'])
def test_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="JSON|valid|EOF|dictionary|missing|Input should be"):
        from_json(Task, text)


@pytest.mark.parametrize("record", [a_task(), Observation(), Message(role="user", content="hi")])
def test_every_record_says_the_version_of_its_form(record: Any) -> None:
    written = to_json(record)
    assert json.loads(written)["schema"] == SCHEMA
    unversioned = json.dumps({k: v for k, v in json.loads(written).items() if k != "schema"})
    assert from_json(type(record), written) == from_json(type(record), unversioned) == record


@pytest.mark.parametrize("version", ["99", '"1"', "null", "[1]"])
def test_a_record_of_a_newer_form_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="newer than 1, which this envgym reads: upgrade envgym"):
        from_json(Observation, f'{{"schema":{version}}}')


def test_a_task_is_hashable_though_its_metadata_is_not() -> None:
    same = a_task(metadata={"family": "sums"}), a_task(metadata={"family": "sums"})
    assert len({*same, a_task(id="u"), a_task(split="held_out")}) == 3


def test_problem_key_is_of_what_is_asked_alone() -> None:
    """Not of the id, the reference or the system prompt; of role and text of every other message."""
    task = a_task()
    again = a_task(id="u", reference=2, messages=task.messages[1:])
    assert problem_key(task) == problem_key(again)
    asked = {
        problem_key(replace(task, messages=messages))
        for messages in (
            task.messages,
            (Message(role="user", content="1 + 2?"),),
            (Message(role="tool", content="1 + 1?"),),
            (Message(role="user", content="1 +"), Message(role="user", content=" 1?")),
        )
    }
    assert len(asked) == 4


def test_the_return_is_the_score_plus_the_rewards_of_the_turns() -> None:
    played = Trajectory(env="e", task=a_task(), turns=[turn("a", 0.25), turn("b", 0.5)])
    assert math.isnan(played.reward)
    played.score = Score(value=1.0, accuracy=1.0)
    assert played.reward == 1.75
    played.outcome = Outcome.failed(ValueError("x"))
    assert math.isnan(played.reward)


def test_messages_and_counts_of_a_trajectory() -> None:
    tokens = TurnTokens(prompt_ids=[1], completion_ids=[2, 3], logprobs=[0.0, 0.0], policy_version=0)
    played = Trajectory(env="e", task=a_task(), turns=[turn("a", tokens=tokens), turn("b")])
    assert played.final_text == "b"
    played.closing = (Message(role="user", content="bye"),)
    assert [m.content for m in played.messages] == ["?", "a", "?", "b", "bye"]
    assert played.sampled_tokens == 2
    assert Trajectory(env="e", task=a_task()).final_text == ""


def test_a_failure_keeps_its_type_and_a_bounded_message() -> None:
    outcome = Outcome.failed(RuntimeError("x" * 10_000))
    assert outcome.reason.startswith("RuntimeError: xxx")
    assert len(outcome.reason) == 2000


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_record_is_a_record_or_a_value_error(seed: int) -> None:
    """The error names a place and quotes nothing, and what is read can be written and shown."""
    call = ToolCall(name="t", arguments={"a": [1, 2.5, None, {"b": "c"}]}, id="1")
    turn = Turn(
        messages=(Message(role="user", content="secret words"),),
        action=Message(role="assistant", content="é", tool_calls=(call,)),
        tokens=TurnTokens(prompt_ids=[1, 2], completion_ids=[3], logprobs=[-0.5], policy_version=1),
    )
    whole = Trajectory(
        env="e",
        task=Task(id="t", split="train", messages=turn.messages, reference={"x": [1]}),
        turns=[turn],
        outcome=Outcome.truncated("tokens"),
        score=Score(value=1.0, accuracy=0.5, components={"c": 1.0}),
        artifacts={"kept": [True]},
        nested=[Trajectory(env="n", task=Task(id="u", split="train", messages=()))],
    )
    raw = to_json(whole).encode()
    refused = []
    for number in range(250):
        rng = random.Random(f"{seed} {number}")
        line = damage_json(raw, rng) if rng.random() < 0.7 else damage_text(raw, rng)
        try:
            read = from_json(Trajectory, line)
        except ValueError as error:
            refused.append(str(error))
            continue
        assert from_json(Trajectory, to_json(read)).task.id == read.task.id
        assert f"{read.reward:.3g} {read.ending} {read.sampled_tokens} {read.messages!r}"
    assert 50 < len(refused) < 250
    assert not [told for told in refused if "secret" in told or len(told) > 500]
