"""The policies' suite finds what it is for: one broken policy for each test."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from typing import Any

import pytest

from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Task, TurnTokens
from envgym.testing import PolicyContract


class Broken(Policy):
    """Says what ``say`` returns."""

    def __init__(self) -> None:
        super().__init__()
        self.count = itertools.count()

    def open(self, *given: Any) -> PolicySession:
        return Session(self)

    async def say(self, session: Session) -> Completion:
        return Completion(message=Message(role="assistant", content="yes"))


class Session(PolicySession):
    def __init__(self, policy: Broken) -> None:
        self.policy = policy
        self.closed = False

    async def act(self, observation: Observation) -> Completion:
        return await self.policy.say(self)

    async def close(self) -> None:
        if type(self.policy) is ClosesOnce and self.closed:
            raise RuntimeError("already closed")
        self.closed = True


class SpeaksAsUser(Broken):
    async def say(self, session: Session) -> Completion:
        return Completion(message=Message(role="user", content="yes"))


class LosesLogProbs(Broken):
    async def say(self, session: Session) -> Completion:
        tokens = TurnTokens(prompt_ids=[1], completion_ids=[1, 2], logprobs=[-1.0], policy_version=0)
        return Completion(message=Message(role="assistant", content="yes"), tokens=tokens)


class Counts(Broken):
    async def say(self, session: Session) -> Completion:
        return Completion(message=Message(role="assistant", content=str(next(self.count))))


class Peeks(Broken):
    """Looks among its callers for the task that is being played."""

    async def say(self, session: Session) -> Completion:
        seen, frame = "", inspect.currentframe()
        while frame is not None:
            tasks = [value for value in frame.f_locals.values() if isinstance(value, Task)]
            seen = str(tasks[0].reference) if tasks else seen
            frame = frame.f_back
        return Completion(message=Message(role="assistant", content=seen))


class Stubborn(Broken):
    async def say(self, session: Session) -> Completion:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
        return await super().say(session)


class ClosesOnce(Broken):
    pass


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (SpeaksAsUser, "test_it_acts_with_assistant_messages"),
        (SpeaksAsUser, "test_it_plays_episodes_to_their_end"),
        (LosesLogProbs, "test_it_acts_with_assistant_messages"),
        (Counts, "test_the_same_seed_gives_the_same_actions"),
        (Counts, "test_sessions_run_at_once_without_disturbing_each_other"),
        (Peeks, "test_the_hidden_reference_changes_nothing"),
        (ClosesOnce, "test_a_session_closes_before_it_acted_and_twice"),
    ],
)
def test_each_test_finds_what_it_is_for(kind: type[Broken], test: str) -> None:
    getattr(PolicyContract(), test)(Broken())
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(PolicyContract(), test)(kind())


def test_a_policy_that_will_not_be_cancelled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym.testing.policies._PATIENCE", 0.05)
    with pytest.raises(AssertionError, match="continues after it was cancelled"):
        PolicyContract().test_a_cancelled_action_ends_and_another_session_works(Stubborn(), 0.01)
