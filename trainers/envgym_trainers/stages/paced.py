"""Players that take the time that a model would take: an engine that is shared, without a model."""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import math
import random
from collections.abc import Sequence

from envgym.env.chat_env import ChatEnv
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.policies.scripted import Expert, Player
from envgym.records import Message, Observation, Task, ToolSpec, TurnTokens, VersionSpan

__all__ = ["Pace", "paced"]

_CHARACTERS = 4
"""Characters of a token, roughly."""


class Pace:
    """An engine's time: everyone who samples has an equal share of its rate.

    It is kept on a clock of tokens, which runs at the rate of one conversation: who begins at c and wants n tokens
    is done at c + n, whoever comes and goes meanwhile. So an event costs the logarithm of the conversations.

    Args:
        rate: tokens per second, over all conversations.
        each: the same for one conversation at most.
        mean: mean number of tokens of a turn, drawn exponentially; 0 for the length of the text.
        seed: of these draws.
    """

    def __init__(self, rate: float, *, each: float = math.inf, mean: float = 0.0, seed: int = 0) -> None:
        self._rate, self._each = rate, each
        self._mean, self._rng = mean, random.Random(seed)
        self._clock = 0.0
        self._read = 0.0
        """Time of the event loop at which ``_clock`` was read."""
        self._order = itertools.count()
        self._sampling: list[tuple[float, int, asyncio.Future[None]]] = []
        """A heap: when each is done, on the clock of tokens."""
        self._timer: asyncio.TimerHandle | None = None
        self._published: list[tuple[float, int]] = [(0.0, 0)]
        """Versions of the weights, and since when, oldest first."""
        self.tokens = 0
        """Tokens sampled so far."""
        self.seconds = 0.0
        """Seconds for which conversations waited for their tokens, all added up."""

    @property
    def sampling(self) -> int:
        """Number of conversations that sample."""
        return len(self._sampling)

    def publish(self, version: int) -> None:
        """Sample from the weights ``version`` from now on, in mid-turn as well."""
        self._advance()
        self._published.append((self._clock, version))

    def length(self, message: Message) -> int:
        """Return the number of tokens that the model takes to say ``message``."""
        if self._mean:
            return max(1, round(self._rng.expovariate(1 / self._mean)))
        calls = "".join(f"{call.name}{call.arguments}" for call in message.tool_calls)
        return max(1, len(message.content + calls) // _CHARACTERS)

    async def sample(self, tokens: int) -> list[VersionSpan]:
        """Take the time of so many tokens; return which weights sampled how many of them."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._advance()
        start = self._clock
        entry = (start + tokens, next(self._order), loop.create_future())
        heapq.heappush(self._sampling, entry)
        self._set_timer()
        try:
            await entry[2]
        except asyncio.CancelledError:
            self._advance()
            if entry in self._sampling:
                self._sampling.remove(entry)
                heapq.heapify(self._sampling)
                self._set_timer()
            raise
        self.tokens += tokens
        self.seconds += loop.time() - began
        return self._spans(start, tokens)

    def _spans(self, start: float, tokens: int) -> list[VersionSpan]:
        ends = [min(tokens, max(0, round(since - start))) for since, _ in self._published[1:]] + [tokens]
        spans, done = [], 0
        for (_, version), end in zip(self._published, ends, strict=True):
            if end > done:
                spans.append(VersionSpan(version, end - done))
                done = end
        return spans

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._sampling:
            self._clock += (now - self._read) * self._speed
        self._read = now

    @property
    def _speed(self) -> float:
        return min(self._each, self._rate / len(self._sampling))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sampling:
            left = max(0.0, self._sampling[0][0] - self._clock) / self._speed
            self._timer = asyncio.get_running_loop().call_later(left, self._due)

    def _due(self) -> None:
        self._advance()
        first = self._sampling[0][0]  # due, whatever rounding says
        while self._sampling and self._sampling[0][0] <= max(first, self._clock):
            _, _, done = heapq.heappop(self._sampling)
            if not done.done():
                done.set_result(None)
        self._set_timer()


def paced(player: Player, pace: Pace) -> Player:
    """Return a player that says what ``player`` says, in the time that ``pace`` gives it; tokens are counted."""
    return _PacedExpert(player, pace) if isinstance(player, Expert) else _PacedPolicy(player, pace)


class _PacedExpert(Expert):
    def __init__(self, expert: Expert, pace: Pace) -> None:
        self._expert, self._pace = expert, pace

    def open(self, env: ChatEnv, task: Task) -> PolicySession:
        return _PacedSession(self._expert.open(env, task), self._pace)

    async def close(self) -> None:
        await self._expert.close()


class _PacedPolicy(Policy):
    def __init__(self, policy: Policy, pace: Pace) -> None:
        super().__init__()
        self._policy, self._pace = policy, pace

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return _PacedSession(self._policy.open(tools, seed), self._pace)

    async def close(self) -> None:
        await self._policy.close()


class _PacedSession(PolicySession):
    def __init__(self, session: PolicySession, pace: Pace) -> None:
        self._session, self._pace = session, pace

    async def act(self, observation: Observation) -> Completion:
        completion = await self._session.act(observation)
        length = self._pace.length(completion.message)
        spans = await self._pace.sample(length)
        tokens = TurnTokens(
            prompt_ids=[],
            completion_ids=[0] * length,
            logprobs=[0.0] * length,
            policy_version=min(span.version for span in spans),
            spans=spans,
        )
        return dataclasses.replace(completion, tokens=tokens)

    async def close(self) -> None:
        await self._session.close()
