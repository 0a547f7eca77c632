"""An environment that pays one answer for every task is found, in whatever form the answer comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pytest

from envgym.check import CHECKS, Subject
from envgym.check.probes import wrong_arguments
from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.tools import tool
from envgym.records import Message, Score, Split, Task, ToolCall, Trajectory


def number(task: Task) -> int:
    return int(task.id.rpartition("-")[2])


class Numbers(ChatEnv):
    """Says something of a number; ``answer`` says what is right."""

    form: ClassVar[str] = "{}"

    def tasks(self, split: Split) -> Sequence[Task]:
        start = 0 if split == "train" else 10_007
        return [
            Task(id=f"{split}-{n}", split=split, messages=(Message(role="user", content=f"Consider {n}."),))
            for n in range(start, start + 400)
        ]

    def answer(self, n: int) -> str:
        return str(n)

    def gold(self, task: Task) -> Sequence[Message]:
        n = number(task)
        return [Message(role="assistant", content=self.form.format(self.answer(n), n=n))]

    def score(self, trajectory: Trajectory) -> Score:
        wanted = self.form.format(self.answer(number(trajectory.task)), n="").split("\n")[-1]
        right = float(trajectory.final_text.endswith(wanted))
        return Score(value=right, accuracy=right)


class Parity(Numbers):
    def answer(self, n: int) -> str:
        return "odd" if n % 2 else "even"


class SortedParity(Parity):
    """All of one answer first, as rows of a file may be."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return sorted(super().tasks(split), key=lambda task: number(task) % 2)


class Reasoned(Parity):
    """Every expert's answer is another text; the part that counts is not."""

    form = "I halve {n}, and look at the rest.\n<answer>{}</answer>"


class Boxed(Parity):
    form = "The rest of {n} decides.\n\\boxed{{{}}}"


class LastLine(Parity):
    form = "I have thought about {n}.\nAnswer: {}"


class Skewed(Numbers):
    """Nearly always the same, and never one of the usual words."""

    def answer(self, n: int) -> str:
        return "prime" if n % 10 == 3 else "composite"


class Digits(Numbers):
    """Ten answers, equally common."""

    form = "<answer>{}</answer>"

    def answer(self, n: int) -> str:
        return str(n % 10)


class Quarter(Numbers):
    def answer(self, n: int) -> str:
        return "ABCD"[n * 7919 % 101 % 4]


class Corridor(Numbers):
    """The door is always on the left, three steps away."""

    async def respond(self, action: Message) -> Reply:
        steps = sum(turn.action.content == "left" for turn in self.trajectory.turns)
        self.trajectory.artifacts["steps"] = steps
        return Reply(messages=(Message(role="user", content="go on"),), done=steps == 3)

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content="left")] * 3

    def score(self, trajectory: Trajectory) -> Score:
        done = float(trajectory.artifacts.get("steps") == 3)
        return Score(value=done, accuracy=done)


class SameScript(Numbers):
    """Two different calls in order, whatever is asked."""

    def _called(self, name: str) -> str:
        done = self.trajectory.artifacts.setdefault("done", [])
        assert isinstance(done, list)
        done.append(name)
        return "done"

    @tool
    async def open(self) -> str:
        """Open."""
        return self._called("open")

    @tool
    async def take(self) -> str:
        """Take."""
        return self._called("take")

    def gold(self, task: Task) -> Sequence[Message]:
        calls = [ToolCall(name=name, id=f"{task.id}-{name}") for name in ("open", "take")]
        return [
            *(Message(role="assistant", content="", tool_calls=(call,)) for call in calls),
            Message(role="assistant", content=f"{task.id} is done"),
        ]

    def score(self, trajectory: Trajectory) -> Score:
        right = float(trajectory.artifacts.get("done") == ["open", "take"])
        return Score(value=right, accuracy=right)


class Declared(Parity):
    """A choice by nature, and says so."""

    chance = 0.5


class DeclaredTooLittle(Skewed):
    chance = 0.5


class NoExpert(Parity):
    """Without an expert, the usual words are tried."""

    def answer(self, n: int) -> str:
        return "no" if n % 2 else "yes"

    def gold(self, task: Task) -> Sequence[Message]:
        raise NotImplementedError


FAULTY = (
    Parity,
    SortedParity,
    Reasoned,
    Boxed,
    LastLine,
    Skewed,
    Corridor,
    SameScript,
    DeclaredTooLittle,
    NoExpert,
)
SOUND = (Numbers, Digits, Quarter, Declared)


def faults(kind: type[ChatEnv], name: str) -> list[str]:
    (check,) = (check for check in CHECKS if check.name == name)
    return check.faults(Subject(make=kind, env=kind(), episodes=2))


@pytest.mark.parametrize("kind", FAULTY, ids=lambda kind: kind.__name__)
def test_one_answer_that_is_right_too_often_is_told_with_its_share(kind: type[ChatEnv]) -> None:
    found = faults(kind, "no answer suits every task")
    assert found
    assert all("of 100 tasks, whatever they ask; less than" in fault for fault in found)


@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: kind.__name__)
def test_answers_that_differ_and_a_declared_choice_pass(kind: type[ChatEnv]) -> None:
    assert faults(kind, "no answer suits every task") == []


def test_the_answer_is_shown_without_what_changes_from_task_to_task() -> None:
    found = faults(Skewed, "no answer suits every task")
    assert any("the expert's most common answer ('composite') is right in 9" in fault for fault in found)


class Tools(Numbers):
    """Tools of every shape that a right call may leave empty."""

    @tool
    async def nothing(self) -> str:
        """Take nothing."""
        return "fine"

    @tool
    async def optional(self, lines: int = 10, mode: Literal["a", "b"] = "a") -> str:
        """Take what there is."""
        return "fine"

    @tool
    async def anything(self, value: Any = None) -> str:
        """Take anything."""
        return "fine"

    @tool
    async def several(self, names: list[str], exact: bool = False) -> str:
        """Take names."""
        return "fine"


def test_a_tool_that_requires_nothing_is_not_blamed_for_taking_nothing() -> None:
    assert faults(Tools, "calls that cannot be run are answered") == []


def test_every_wrong_call_is_wrong_by_the_schema_and_every_tool_gets_one() -> None:
    calls = {name: list(wrong_arguments(made.spec)) for name, made in Tools().tools.items()}
    assert calls == {
        "nothing": [{"no such": [1]}],
        "optional": [{"no such": [1]}, {"lines": "many"}],
        "anything": [{"no such": [1]}],
        "several": [{"no such": [1]}, {}, {"names": "no list"}],
    }


class Lenient(Tools):
    """Answers a call it cannot understand as if nothing were wrong."""

    async def respond(self, action: Message) -> Reply:
        return Reply(messages=tuple(Message(role="tool", content="fine") for _ in action.tool_calls))


def test_a_call_that_is_wrong_and_answered_as_if_it_were_right_is_still_found() -> None:
    found = faults(Lenient, "calls that cannot be run are answered")
    assert any("call 'several' with {} was not answered with an error" in fault for fault in found)
