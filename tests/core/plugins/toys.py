"""Environments that are quick to play and that fail on demand."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.tools import ToolInputError, tool
from envgym.errors import SandboxError, UserError, VerifierError
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.sandbox.interface import Backend, Limits, Sandbox
from envgym.tasks.procedural import ProceduralTasks

FOREVER = 3600.0


class Adder(ChatEnv):
    """Add two numbers.

    A second paragraph, which ``show`` leaves out.
    """

    class Config(ChatEnv.Config):
        """``trouble`` says what goes wrong, in the instances whose number is below ``troubled``."""

        trouble: str = ""
        troubled: int = 1_000_000
        numbers: int = pydantic.Field(default=30, ge=1, description="addends are below this")
        empty: bool = False

    config: Config
    instances: ClassVar[list[Adder]] = []

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.number = len(self.instances)
        self.instances.append(self)
        self.starts = self.finishes = self.closes = 0
        self.cleaned = False

    def trouble(self, name: str) -> bool:
        return self.config.trouble == name and self.number < self.config.troubled

    def tasks(self, split: Split) -> Sequence[Task]:
        if self.config.empty:
            return []
        return ProceduralTasks(self._generate, split, self.config.size, self.config.task_seed)

    def _generate(self, rng: random.Random, split: Split) -> Task:
        a, b = (rng.randrange(self.config.numbers) for _ in range(2))
        prompt = Message(role="user", content=f"{a} + {b}?")
        return Task(id=f"{a}+{b}", split=split, messages=(prompt,), reference=a + b)

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content=str(task.reference))]

    async def start(self, task: Task) -> None:
        self.starts += 1
        if self.trouble("start"):
            raise RuntimeError("no power")
        if self.trouble("say_and_hang"):
            print("begun", file=sys.stderr, flush=True)
        if self.trouble("hang_start") or self.trouble("say_and_hang"):
            await asyncio.sleep(FOREVER)

    async def finish(self) -> None:
        self.finishes += 1
        if self.trouble("finish"):
            raise RuntimeError("cannot tidy up")
        if self.trouble("hang_finish"):
            await asyncio.sleep(FOREVER)

    async def aclose(self) -> None:
        await super().aclose()
        self.closes += 1
        if self.trouble("close"):
            raise RuntimeError("cannot close")

    async def respond(self, action: Message) -> Reply:
        match self.config.trouble if self.number < self.config.troubled else "":
            case "respond":
                raise RuntimeError("wires crossed")
            case "timeout":
                raise TimeoutError("inner")
            case "sandbox":
                raise SandboxError("gone")
            case "user":
                raise UserError("set it right")
            case "chatter":
                return Reply(messages=(Message(role="user", content="go on"),), reward=0.25, metrics={"chat": 1.0})
            case "endless":
                return Reply(reward=float("inf"), done=True)
        return await super().respond(action)

    def score(self, trajectory: Trajectory) -> Any:
        return self._score_of(trajectory)

    async def _score_of(self, trajectory: Trajectory) -> Any:
        match self.config.trouble if self.number < self.config.troubled else "":
            case "score":
                raise KeyError("answer")
            case "verifier":
                raise VerifierError("undecided")
            case "nan":
                return Score(value=float("nan"), accuracy=0.0)
            case "not_a_score":
                return 1.0
            case "hang_score":
                await asyncio.sleep(FOREVER)
        right = float(trajectory.final_text == str(trajectory.task.reference))
        return Score(value=right, accuracy=right, components={"right": right})

    @tool
    def add(self, a: int, b: int = 1) -> int:
        """Add.

        Not part of the description.
        """
        return a + b

    @tool(timeout=0.2)
    async def sleep(self, seconds: float) -> str:
        """Sleep."""
        try:
            await asyncio.sleep(seconds)
        finally:
            self.cleaned = True
        return "slept"

    @tool(timeout=FOREVER)
    async def nap(self, seconds: float) -> str:
        """Sleep with no end."""
        await asyncio.sleep(seconds)
        return "slept"

    @tool
    async def broken(self) -> str:
        """Break."""
        raise OSError("disk on fire")


def numbered(split: Split, count: int, *texts: str) -> list[Task]:
    """Tasks of different problems; their prompts are ``texts`` in turn."""
    return [
        Task(
            id=f"{split}-{i}",
            problem=f"{split} {i}",
            split=split,
            messages=(Message(role="user", content=texts[i % len(texts)]),),
        )
        for i in range(count)
    ]


class Letter(ChatEnv):
    """Answer with a letter. One token decides; a beginner is unsure."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return numbered(split, 200, "?")

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content="a")]

    def novice(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content="?")]

    def score(self, trajectory: Trajectory) -> Score:
        first = trajectory.final_text[:1]
        right = float(first.isascii() and first.isalpha())
        return Score(value=right, accuracy=right)


class ManyTools(ChatEnv):
    """Every kind of tool."""

    log: ClassVar[list[str]] = []

    @tool
    def typed(
        self,
        text: str,
        mode: Literal["up", "down"] = "up",
        numbers: list[int] | None = None,
        share: Annotated[float, pydantic.Field(ge=0, le=1, description="how much")] = 0.5,
        *,
        schema: str = "",
        copy: bool = False,
    ) -> dict[str, Any]:
        """Say what came."""
        return {
            "text": text, "mode": mode, "numbers": numbers, "share": share, "schema": schema, "copy": copy
        }  # fmt: skip

    @tool(max_chars=100)
    def shout(self, times: int) -> str:
        """Shout."""
        return "é" * times

    @tool(max_chars=100)
    def refuse(self, text: str) -> str:
        """Refuse."""
        raise ToolInputError(f"not {text}")

    @tool(timeout=0.2)
    def hang(self) -> str:
        """Never return."""
        threading.Event().wait()
        return ""

    @tool
    def leave(self) -> str:
        """End the process, if it could."""
        raise SystemExit(3)

    @tool
    def run_dry(self) -> int:
        """Take from nothing."""
        return next(iter([]))

    @tool
    async def time_out(self) -> str:
        """Fail for a reason of its own."""
        raise TimeoutError("the database")

    @tool
    def tangled(self) -> list[Any]:
        """Return what cannot be written."""
        knot: list[Any] = []
        knot.append(knot)
        return knot

    @tool
    def half(self) -> str:
        """Return half a surrogate pair."""
        return "a\ud800b"

    @tool
    async def beside(self, name: str, seconds: float = 0.02) -> str:
        """Run beside others."""
        return await self._logged(name, seconds)

    @tool(concurrent=False)
    async def alone(self, name: str, seconds: float = 0.02) -> str:
        """Run alone."""
        return await self._logged(name, seconds)

    async def _logged(self, name: str, seconds: float) -> str:
        self.log.append(f"+{name}")
        await asyncio.sleep(seconds)
        self.log.append(f"-{name}")
        return name


class FullDisk(Backend):
    """A backend that cannot open anything."""

    closes = 0

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    async def open(self, limits: Limits) -> Sandbox:
        raise OSError("disk full")

    async def close(self) -> None:
        self.closes += 1
