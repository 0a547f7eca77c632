"""``play`` and ``Script``: an episode in one line of an author's test."""

from __future__ import annotations

import pytest
from toys import Adder

from envgym import Message
from envgym.testing import Script, play


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


def test_the_first_task_of_the_split_is_played_unless_one_is_given() -> None:
    env = Adder(split="held_out")
    first, second = env.task_list("held_out")[:2]
    assert play(env, Script(said(str(first.reference)))).reward == 1
    assert play(env, Script(said(str(second.reference))), second, seed=7).seed == 7
    assert play(env, Script(said("no"))).reward == 0


def test_a_script_begins_again_in_every_episode_and_ends_in_silence() -> None:
    env, script = Adder(trouble="chatter", max_turns=3), Script(said("one"), said("two"))
    for _ in range(2):
        assert [turn.action.content for turn in play(env, script).turns] == ["one", "two", ""]


def test_a_failed_episode_is_an_error_of_the_test() -> None:
    with pytest.raises(AssertionError, match="failed: SandboxError: gone"):
        play(Adder(trouble="sandbox"), Script(said("1")))
