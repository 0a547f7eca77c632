"""Environments whose episodes have others played: a question, and helpers that are asked about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from envgym.env.chat_env import ChatEnv, Reply
from envgym.errors import SandboxError
from envgym.records import Message, Score, Split, Task, Trajectory

FOREVER = 3600.0


def task_of(text: str, reference: Any = None) -> Task:
    return Task(id=text, split="train", messages=(Message(role="user", content=text),), reference=reference)


class Helper(ChatEnv):
    """Say the word. Notes its instances, and what became of each."""

    instances: ClassVar[list[Helper]] = []

    class Config(ChatEnv.Config):
        trouble: Literal["", "start", "close"] = ""

    config: Config

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.instances.append(self)
        self.starts = self.finishes = self.closes = 0

    async def start(self, task: Task) -> None:
        self.starts += 1
        if self.config.trouble == "start" or task.id == "trouble":
            raise SandboxError("gone")

    async def finish(self) -> None:
        self.finishes += 1

    async def aclose(self) -> None:
        await super().aclose()
        self.closes += 1

    def score(self, trajectory: Trajectory) -> Score:
        right = float(trajectory.final_text == str(trajectory.task.reference))
        return Score(value=right, accuracy=right)

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content=str(task.reference))]


class Manager(ChatEnv):
    """Has helpers play ``word`` before it answers; its score is that of the helpers."""

    roles = ("helper", "other")

    class Config(ChatEnv.Config):
        word: str = "hi"
        role: str = "helper"
        count: int = 1
        failed_ok: bool = False
        mode: Literal["await", "gather", "same", "forget", "itself", "conclude"] = "await"

    config: Config
    draws: tuple[float, ...] = ()
    left: float = -1.0

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=f"{split}-{i}", split=split, messages=(), reference=i) for i in range(3)]

    async def start(self, task: Task) -> None:
        self.draws = tuple(self.services.rng.random() for _ in range(3))
        self.left = self.services.seconds_left()

    async def respond(self, action: Message) -> Reply:
        match self.config.mode:
            case "await" | "gather":
                await asyncio.gather(*(self._ask("company:Helper") for _ in range(self.config.count)))
            case "same":
                helper = Helper(services=self.services)
                await asyncio.gather(*(self._ask(helper) for _ in range(self.config.count)))
            case "forget":
                self.forgotten = asyncio.ensure_future(self._ask("company:Helper"))
                await asyncio.sleep(0.05)
            case "itself":
                await self._ask("company:Manager")
            case "conclude":
                pass
        return Reply(done=True)

    async def _ask(self, env: ChatEnv | str) -> Trajectory:
        s = self.config
        return await self.services.play(env, task_of(s.word, s.word), role=s.role, failed_ok=s.failed_ok)

    async def conclude(self) -> None:
        if self.config.mode == "conclude":
            await self._ask("company:Helper")

    def score(self, trajectory: Trajectory) -> Score:
        good = [t for t in trajectory.nested if t.score is not None]
        value = sum(t.reward for t in good) / max(1, len(good))
        return Score(value=value, accuracy=value)

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content="done")]


class Endless(Manager):
    """Plays itself without end."""

    async def respond(self, action: Message) -> Reply:
        await self.services.play("company:Endless", task_of("again"), role="helper")
        return Reply(done=True)
