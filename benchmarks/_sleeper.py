"""An environment whose tool sleeps for as long as the task says, or hangs until its time is up."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import ClassVar

import pydantic

from envgym.env.answers import call, script
from envgym.env.chat_env import ChatEnv
from envgym.env.tools import tool
from envgym.records import Message, Score, Split, Task, Trajectory

__all__ = ["HANGS", "TIMEOUT", "Sleeper"]

TIMEOUT = float(os.environ.get("SLEEPER_TIMEOUT", "30"))
"""Time limit of the tool in seconds: by default the default of ``@tool``."""
HANGS = -1.0


class Sleeper(ChatEnv):
    """Call a tool a few times, each time for a drawn number of seconds, and answer."""

    class Config(ChatEnv.Config):
        """How long the calls of a task take."""

        calls: int = pydantic.Field(default=3, ge=1, description="calls in each episode")
        least: float = pydantic.Field(default=0.05, ge=0, description="shortest sleep in seconds")
        most: float = pydantic.Field(default=0.5, ge=0, description="longest sleep in seconds")
        hanging: float = pydantic.Field(
            default=0.01, ge=0, le=1, description="share of episodes with a call that hangs"
        )

    config: Config
    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return ``size`` tasks."""
        rng = random.Random(self.config.task_seed)
        return [self._task(rng, split, number) for number in range(self.config.size)]

    def gold(self, task: Task) -> Sequence[Message]:
        """Return the calls, one a turn, then the answer."""
        seconds = task.reference if isinstance(task.reference, list) else []
        return script([call("wait", seconds=s) for s in seconds], "done")

    def score(self, trajectory: Trajectory) -> Score:
        """Return 1 for an episode with every call answered."""
        done = float(len(trajectory.turns) == self.config.calls + 1)
        return Score(value=done, accuracy=done)

    @tool(timeout=TIMEOUT)
    async def wait(self, seconds: float) -> str:
        """Wait."""
        if seconds == HANGS:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(seconds)
        return "waited"

    def _task(self, rng: random.Random, split: Split, number: int) -> Task:
        s = self.config
        seconds = [rng.uniform(s.least, s.most) for _ in range(s.calls)]
        if rng.random() < s.hanging:
            seconds[rng.randrange(s.calls)] = HANGS
        prompt = Message(role="user", content=f"Task {number}.")
        return Task(id=str(number), split=split, messages=(prompt,), reference=list(seconds))
