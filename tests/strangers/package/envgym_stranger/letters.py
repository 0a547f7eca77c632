"""An environment with a tool that runs in a sandbox."""

from __future__ import annotations

import random
from collections.abc import Sequence

from envgym import ChatEnv, Message, ProceduralTasks, Score, Split, Task, ToolCall, Trajectory, tool
from envgym.env.python_tool import PythonSession
from envgym.sandbox.interface import Limits


class Letters(ChatEnv):
    """Count a letter in a word, with Python at hand."""

    class Config(ChatEnv.Config):
        """Settings of ``Letters``."""

        letters: str = "abc"

    config: Config
    needs_sandbox = True

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return words made on demand."""
        return ProceduralTasks(self.word, split, self.config.size, self.config.task_seed)

    def word(self, rng: random.Random, split: Split) -> Task:
        """Draw a word and ask for its first letter."""
        word = "".join(rng.choices(self.config.letters, k=12))
        asked = Message(role="user", content=f"How often does the first letter of {word} occur in it?")
        return Task(id=word, split=split, messages=(asked,), reference=str(word.count(word[0])))

    async def start(self, task: Task) -> None:
        """Prepare a session; its first cell opens the sandbox."""
        self.session = PythonSession(self.services, Limits(wall_seconds=5.0), error_chars=200)

    async def finish(self) -> None:
        """Close the sandbox."""
        await self.session.close()

    @tool
    async def python(self, code: str) -> str:
        """Run Python."""
        return await self.session.run(code)

    def score(self, trajectory: Trajectory) -> Score:
        """Compare the last message."""
        right = float(trajectory.final_text == trajectory.task.reference)
        return Score(value=right, accuracy=right, components={"right": right})

    def gold(self, task: Task) -> Sequence[Message]:
        """Count with Python, then answer."""
        code = f"print({task.id!r}.count({task.id[0]!r}))"
        call = ToolCall(name="python", arguments={"code": code}, id="call_0")
        return [
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="assistant", content=str(task.reference)),
        ]
