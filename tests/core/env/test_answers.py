"""Only the fenced text of a final message is an answer, and what an expert writes is read back."""

from __future__ import annotations

import pytest

from envgym.env.answers import call, fenced_answer, has_format, reference_of, script
from envgym.errors import DataError
from envgym.records import Message, Task, Trajectory, Turn


def ended_with(*actions: Message) -> Trajectory:
    turns = [Turn(messages=(Message(role="tool", content="<answer>tool</answer>"),), action=a) for a in actions]
    return Trajectory(env="e", task=Task(id="t", split="train", messages=()), turns=turns)


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


@pytest.mark.parametrize(
    ("actions", "answer"),
    [
        ([], None),
        ([said("7")], None),
        ([said("<answer>7</answer>")], "7"),
        ([said("so \\boxed{7}")], "7"),
        ([said("<answer>6</answer> no: <answer>7</answer>")], "7"),
        ([said("<answer>7</answer>"), said("done")], None),
        ([call("search", query="<answer>7</answer>")], None),
    ],
)
def test_the_last_fence_of_the_last_message_counts(actions: list[Message], answer: str | None) -> None:
    trajectory = ended_with(*actions)
    assert fenced_answer(trajectory) == answer
    assert has_format(trajectory) == float(answer is not None)


def test_an_experts_script_makes_its_calls_and_then_answers() -> None:
    searching = call("search", query="Paris", top=3)
    assert [(c.name, c.arguments) for c in searching.tool_calls] == [("search", {"query": "Paris", "top": 3})]
    actions = script([searching], "France")
    assert actions[:-1] == [searching]
    assert fenced_answer(ended_with(*actions)) == "France"


def test_a_reference_of_another_kind_is_refused() -> None:
    task = Task(id="t", split="train", messages=(), reference={"answer": "7"})
    assert reference_of(task) == {"answer": "7"}
    with pytest.raises(DataError, match="task 't' has no reference object"):
        reference_of(Task(id="t", split="train", messages=(), reference="7"))
