"""The contract of policies, as tests."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.env.run_sync import run_sync
from envgym.env.tools import tool
from envgym.policies.interface import Completion, Policy, PolicySession, policies
from envgym.records import Message, Observation, Score, Split, Task, Trajectory
from envgym.testing.play import play

__all__ = ["PolicyContract"]

_CANCELLED_AFTER = (0.0, 0.01)
"""Delays in seconds: before a policy begins to work, and while a slow one does."""
_PATIENCE = 10.0
"""Time for a cancelled action to end, in seconds."""
_AT_ONCE = 4
"""Number of concurrent sessions."""


class _Lookup(ChatEnv):
    """Find a word with a tool and say it."""

    def tasks(self, split: Split) -> Sequence[Task]:
        asked = Message(role="user", content="Which word is behind the door? Use the tool, then say the word.")
        return [Task(id=f"{split}/{i}", split=split, messages=(asked,), reference=f"w{i}") for i in range(2)]

    @tool
    def look(self, door: int = 0) -> str:
        """Look behind a door."""
        return f"behind door {door} is a word"

    def score(self, trajectory: Trajectory) -> Score:
        right = float(trajectory.final_text == trajectory.task.reference)
        return Score(value=right, accuracy=right)


class PolicyContract:
    """Test that the sessions of a policy are independent, seeded, and can be abandoned.

    A subclass sets:
        policy: name of the policy, or ``"package.module:Class"``.
        settings: fields of its ``Config``.
        repeatable: true if equal seeds give equal actions, which not every server guarantees.
    """

    policy: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    repeatable: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls) -> Iterator[Policy]:
        """Make the policy, which the tests of the class share."""
        policy = policies.make(cls.policy, cls.settings)
        yield policy
        run_sync(policy.close())
        run_sync(policy.close())  # safe to call twice

    def test_it_acts_with_assistant_messages(self, opened: Policy) -> None:
        """Check the first completion, and its token record where there is one."""
        completion = run_sync(_first(opened, seed=0))
        assert completion.message.role == "assistant"
        if completion.tokens is not None:
            tokens = completion.tokens
            assert len(tokens.completion_ids) == len(tokens.logprobs) > 0
            assert tokens.prompt_ids
            assert all(math.isfinite(value) and value <= 0 for value in tokens.logprobs)

    def test_it_plays_episodes_to_their_end(self, opened: Policy) -> None:
        """Play every task of an environment with a tool, one after the other."""
        env = _Lookup()
        for seed, task in enumerate(env.task_list("train")):
            assert play(env, opened, task, seed=seed).score is not None

    def test_the_same_seed_gives_the_same_actions(self, opened: Policy) -> None:
        """Play one task twice with one seed."""
        if self.repeatable:
            first, again = (play(_Lookup(), opened, seed=5) for _ in range(2))
            assert first.messages == again.messages

    def test_sessions_run_at_once_without_disturbing_each_other(self, opened: Policy) -> None:
        """Run several sessions concurrently, and find the actions of each run alone."""

        async def together() -> list[Completion]:
            return await asyncio.gather(*(_first(opened, seed) for seed in range(_AT_ONCE)))

        found = [completion.message for completion in run_sync(together())]
        if self.repeatable:
            assert found == [run_sync(_first(opened, seed)).message for seed in range(_AT_ONCE)]

    @pytest.mark.parametrize("after", _CANCELLED_AFTER)
    def test_a_cancelled_action_ends_and_another_session_works(self, opened: Policy, after: float) -> None:
        """Cancel an action; its session closes, and the policy goes on."""

        async def cancel() -> None:
            session = _open(opened, seed=1)
            acting = asyncio.create_task(_collect(session))
            await asyncio.sleep(after)
            acting.cancel()
            await asyncio.wait({acting}, timeout=_PATIENCE)
            assert acting.done(), "act() continues after it was cancelled"
            await session.close()

        run_sync(cancel())
        assert run_sync(_first(opened, seed=1)).message.role == "assistant"

    def test_a_session_closes_before_it_acted_and_twice(self, opened: Policy) -> None:
        """Close a session that was never used."""

        async def close() -> None:
            session = _open(opened, seed=2)
            await session.close()
            await session.close()

        run_sync(close())

    def test_the_hidden_reference_changes_nothing(self, opened: Policy) -> None:
        """Play two tasks that differ only in their reference."""
        if self.repeatable:
            env = _Lookup()
            task = env.task_list("train")[0]
            other = dataclasses.replace(task, reference="another word")
            assert play(env, opened, task).messages == play(env, opened, other).messages


def _open(policy: Policy, seed: int) -> PolicySession:
    return policy.open(_first_observation().tools, seed)


async def _first(policy: Policy, seed: int) -> Completion:
    session = _open(policy, seed)
    try:
        return await _collect(session)
    finally:
        await session.close()


async def _collect(session: PolicySession) -> Completion:
    return await session.act(_first_observation())


def _first_observation() -> Observation:
    env = _Lookup()
    tools = tuple(made.spec for made in env.tools.values())
    return Observation(messages=env.task_list("train")[0].messages, tools=tools)
