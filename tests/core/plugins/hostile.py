"""A policy and an environment that write to the terminal whatever controls one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.tools import tool
from envgym.errors import SandboxError, UserError
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Score, Split, Task, ToolCall, ToolSpec, Trajectory

CONTROLS = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://x\x1b\\\x9b31m\x90q\x9d\x00\x07\x08\r\x7f"
    "\u202e\u2066\u200e\u200b\u2060\ufeff\u2028\u0085\U000e0041[red]:bug:"
)
"""Escapes of every family, marks of direction and of no width, a tag, rich's markup and its emoji."""


class Painter(Policy, PolicySession):
    """Answers with a call and text full of controls."""

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return self

    async def act(self, observation: Observation) -> Completion:
        call = ToolCall(name=f"paint{CONTROLS}", arguments={CONTROLS: CONTROLS}, id="call_0")
        return Completion(message=Message(role="assistant", content=f"I say {CONTROLS}", tool_calls=(call,)))


class Canvas(ChatEnv):
    """Paint \x1b[2J\u202e."""

    class Config(ChatEnv.Config):
        """``trouble`` says where it fails."""

        trouble: str = ""

    config: Config

    def tasks(self, split: Split) -> Sequence[Task]:
        if self.config.trouble == "tasks":
            raise UserError(f"no tasks {CONTROLS}")
        if self.config.trouble == "bug":
            raise ZeroDivisionError(f"a bug {CONTROLS}")
        asked = Message(role="user", content=f"Paint {CONTROLS}")
        return [
            Task(id=f"{split}{i}{CONTROLS}", problem=f"{split}{i}", split=split, messages=(asked,)) for i in (1, 2)
        ]

    async def start(self, task: Task) -> None:
        print(f"printed {CONTROLS}")
        print(f"said {CONTROLS}", file=sys.stderr, flush=True)
        warnings.warn(f"warned {CONTROLS}", stacklevel=1)

    async def respond(self, action: Message) -> Reply:
        if self.config.trouble == "respond":
            raise SandboxError(f"gone {CONTROLS}")
        return Reply(messages=(Message(role="user", content=f"Seen {CONTROLS}"),), done=True)

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=0.5, accuracy=0.0, components={f"paint{CONTROLS}": 0.5})

    @tool
    def brush(self, colour: str = CONTROLS) -> str:
        """Brush \x1b[31m."""
        return colour
