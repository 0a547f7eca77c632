"""The quality gate finds what it is for: one broken environment for each check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from commands import Run
from toys import Adder

from envgym.check import CHECKS, Subject
from envgym.env.chat_env import Reply
from envgym.env.tools import Tool
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.tasks.procedural import ProceduralTasks


class Sound(Adder):
    """The toy without its broken tools."""

    def make_tools(self) -> dict[str, Tool]:
        """One tool that works."""
        return {name: made for name, made in super().make_tools().items() if name == "add"}


class Generous(Sound):
    """Pays for any message that is not empty."""

    def score(self, trajectory: Trajectory) -> Any:
        return Score(value=float(bool(trajectory.final_text)), accuracy=1.0, components={})


class WrongExpert(Sound):
    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content="one more than that")]


class OutOfRange(Sound):
    reward_range: ClassVar[tuple[float, float]] = (0.25, 0.5)


class Forgetful(Sound):
    """Scores by what the instance remembers."""

    def score(self, trajectory: Trajectory) -> Any:
        self.starts += 1
        return Score(value=1 / self.starts, accuracy=0.0, components={})


class Impatient(Sound):
    """Ends an episode instead of answering a call."""

    async def respond(self, action: Message) -> Reply:
        return Reply(done=True)


class Leaky(Sound):
    """The same problems in both splits."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=str(i), split=split, messages=(), reference=i) for i in range(9)]


class Moody(Sound):
    """Another sequence of tasks for every instance."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return ProceduralTasks(self._generate, split, self.config.size, self.number)


class Talkative(Sound):
    """Tells the answer in its info, which no override could bring about."""


async def _talking(self: Talkative, **arguments: Any) -> Any:
    observation, info = await Sound.areset(self, **arguments)
    return observation, {**info, "answer": 4}


Talkative.areset = _talking  # type: ignore[method-assign, assignment]


class Clinging(Sound):
    async def finish(self) -> None:
        if self.number:
            raise RuntimeError("cannot let go")


class Muddled(Sound):
    """Stays busy for ever when it is cancelled while it begins."""

    busy = False

    async def start(self, task: Task) -> None:
        if self.busy:
            raise RuntimeError("busy")
        self.busy = True
        await asyncio.sleep(0.01)
        self.busy = False


FAILING = {
    WrongExpert: "gold scores the maximum",
    Generous: "what deserves nothing scores the floor",
    Impatient: "calls that cannot be run are answered",
    OutOfRange: "random actions stay within the rules",
    Moody: "the same seed draws the same task",
    Talkative: "the first observation is the prompt alone",
    Forgetful: "replay and re-scoring give the same score",
    Leaky: "train and held-out share nothing",
    Muddled: "a cancelled episode ends, and another can begin",
    Clinging: "episodes can be abandoned, and closing twice is safe",
}


def failing(kind: type[Adder]) -> set[str]:
    Adder.instances.clear()
    subject = Subject(make=kind, env=kind(), episodes=2)
    return {check.name for check in CHECKS if check.faults(subject)}


def test_a_sound_environment_passes() -> None:
    assert failing(Sound) == set()


@pytest.mark.parametrize("kind", FAILING, ids=lambda kind: kind.__name__)
def test_each_check_finds_what_it_is_for(kind: type[Adder]) -> None:
    assert FAILING[kind] in failing(kind)


def test_every_check_tells_how_to_mend() -> None:
    assert all(check.mend for check in CHECKS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_the_command(run: Run) -> None:
    good = run("check", "math_problems", "--episodes", "1")
    assert good.code == 0
    assert good.out.splitlines() == [f"passes  {check.name}" for check in CHECKS]
    bad = run("check", "toys:Adder", "--json")
    assert bad.code == 1
    assert json.loads(bad.out)["gold scores the maximum"] == []
    assert "disk on fire" in str(json.loads(bad.out)["calls that cannot be run are answered"])
    shown = run("check", "toys:Adder", "--episodes", "1").out
    assert "to mend it: let run_calls answer tool calls" in shown


def test_an_environment_that_is_judged_is_checked_with_a_judge(run: Run, judge_server: Any) -> None:
    """One that says yes to everything: what the gate tries by itself is refused before anybody is asked."""
    judged = ("check", "search_qa", "--set", "grader=judge", "--set", "documents=60")
    assert "--judge URL#MODEL" in run(*judged).err
    done = run(*judged, "--judge", f"{judge_server.url}#j", "--json")
    found = json.loads(done.out)
    assert [name for name, faults in found.items() if faults] == [
        "what deserves nothing scores the floor",
        "no answer suits every task",
    ]
    judge_server.reply = lambda shown: '{"correct": false}'
    assert run(*judged, "--judge", f"{judge_server.url}#j").code == 0


def test_how_the_judge_is_asked_can_be_set(run: Run, judge_server: Any) -> None:
    judged = ("check", "search_qa", "--set", "grader=judge", "--set", "documents=60", "--episodes", "1")
    run(*judged, "--judge", f"{judge_server.url}#j", "--judge-set", "max_tokens=128")
    assert {request["max_tokens"] for request in judge_server.seen} == {128}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge", "http://127.0.0.1:9/v1", "--judge-set", "max_token=3"], "max_tokens"),
        (["--judge", "http://127.0.0.1:9/v1", "--judge-set", "timeout=0"], "greater than 0"),
        (["--judge-set", "max_tokens=3"], "no judge is named"),
    ],
)
def test_a_wrong_setting_of_the_judge_is_refused(run: Run, options: list[str], said: str) -> None:
    done = run("check", "math_problems", *options)
    assert done.code == 2
    assert said in done.err
