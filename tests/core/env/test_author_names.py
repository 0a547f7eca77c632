"""Authors and the machinery of ``ChatEnv`` share no names: theirs break nothing, its own cannot be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.check import CHECKS, Subject
from envgym.env.chat_env import ChatEnv
from envgym.env.declarations import HOOKS
from envgym.env.tools import tool
from envgym.records import Message, Score, Split, Task, Trajectory

OLD_NAMES = (
    "_owns_services",
    "_specs",
    "_tasks",
    "_pending",
    "_started",
    "_unfinished",
    "_draw",
    "_observe",
    "_current",
    "_conclude",
    "_record",
)
"""Private names that machinery has had, or that an author is likely to choose."""
NEW_NAMES = sorted(name.removeprefix("_ChatEnv") for name in vars(ChatEnv()) if name.startswith("_ChatEnv__"))


class Echo(ChatEnv):
    """Say it again."""

    def tasks(self, split: Split) -> Sequence[Task]:
        words = "abcdef" if split == "train" else "uvwxyz"
        return [Task(id=w, split=split, messages=(Message(role="user", content=f"say {w}"),)) for w in words]

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content=task.id)]

    def score(self, trajectory: Trajectory) -> Score:
        right = float(trajectory.final_text == trajectory.task.id)
        return Score(value=right, accuracy=right)

    @tool
    async def spell(self, word: str) -> str:
        """Spell a word."""
        return "-".join(word)


def _faults(kind: type[ChatEnv]) -> list[str]:
    env = kind()
    try:
        return [fault for check in CHECKS for fault in check.faults(Subject(make=kind, env=env, episodes=1))]
    finally:
        env.close()


@pytest.mark.parametrize("value", [None, 7, lambda *_: 1 / 0], ids=["none", "number", "method"])
def test_an_author_may_use_every_private_name(value: Any) -> None:
    """As attributes of the class and of the instance, all at once; the quality gate still passes."""
    names = (*OLD_NAMES, *NEW_NAMES)
    assert len(NEW_NAMES) > 5

    def init(self: Any, **arguments: Any) -> None:
        for name in names:
            setattr(self, name, value)
        Echo.__init__(self, **arguments)
        for name in names:
            setattr(self, name, value)

    assert _faults(type("Crowded", (Echo,), {**dict.fromkeys(names, value), "__init__": init})) == []


@settings(max_examples=25, deadline=None)
@given(names=st.sets(st.from_regex(r"_[a-z]{1,8}", fullmatch=True), max_size=30))
def test_no_private_name_is_taken(names: set[str]) -> None:
    """``gymnasium.Env`` has two of its own, which are not ours to free."""
    taken = names - {"_np_random", "_np_random_seed"}
    made = type("Named", (Echo,), dict.fromkeys(taken, 7))()
    made.reset(seed=0)
    reward = made.step(Message(role="assistant", content=made.trajectory.task.id))[1]
    assert reward == 1.0
    assert all(getattr(made, name) == 7 for name in taken)


@pytest.mark.parametrize("name", HOOKS)
def test_machinery_cannot_be_overridden_and_the_hook_is_named(name: str) -> None:
    with pytest.raises(
        TypeError, match=f"Bold overrides {name}, which is ChatEnv's own; write {HOOKS[name]} instead"
    ):
        type("Bold", (Echo,), {name: lambda self: None})
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match=f"Mixed overrides {name}"):
        type("Mixed", (mixin, Echo), {})


@pytest.mark.parametrize("roles", ["verifier", ("",), ("a/b",), ("a", 1), ["a"]])
def test_roles_are_a_tuple_of_names(roles: Any) -> None:
    with pytest.raises(TypeError, match="Vague.roles must be a tuple of names"):
        type("Vague", (Echo,), {"roles": roles})


def test_every_hook_exists() -> None:
    for hook in HOOKS.values():
        for name in hook.replace(",", " ").split(" and ")[:1]:
            assert callable(getattr(ChatEnv, name.split()[0]))


def test_the_record_is_there_from_the_first_reset_on() -> None:
    env = Echo()
    with pytest.raises(gymnasium.error.ResetNeeded, match="no episode was begun"):
        _ = env.trajectory
    env.reset(seed=0)
    record = env.trajectory
    assert record.turns == []
    env.step(Message(role="assistant", content=record.task.id))
    assert env.trajectory is record
    assert record.reward == 1.0


def test_what_is_costly_is_shared_through_a_hook() -> None:
    class Costly(Echo):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.known: dict[str, int] = {}

        def share(self, other: Costly) -> None:
            self.known = other.known

    first, second = Costly(), Costly()
    second.share_tasks(first)
    assert second.known is first.known
    assert second.task_list("train") is first.task_list("train")
