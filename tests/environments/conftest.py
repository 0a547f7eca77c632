"""Play scripted episodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.records import Message, Task, ToolCall, Trajectory

Play = Callable[..., Trajectory]


@pytest.fixture
def play() -> Play:
    """``play(env, task, *actions)``: a text is a message; a tuple ``(tool, arguments)`` is a call."""

    def run(env: ChatEnv, task: Task, *actions: object) -> Trajectory:
        env.reset(seed=0, options={"task": task})
        for action in actions:
            env.step(_message(action))
        return env.trajectory

    return run


@pytest.fixture
def play_gold(play: Play) -> Callable[[ChatEnv, Task], Trajectory]:
    """Play the environment's scripted expert."""

    def run(env: ChatEnv, task: Task) -> Trajectory:
        actions: Sequence[Message] = env.gold(task)
        return play(env, task, *actions)

    return run


def _message(action: object) -> Message:
    if isinstance(action, Message):
        return action
    if isinstance(action, tuple):
        name, arguments = action
        return Message(
            role="assistant", content="", tool_calls=(ToolCall(name=name, arguments=arguments, id="c"),)
        )
    return Message(role="assistant", content=str(action))


@pytest.fixture
def data_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of public data sets: ``$ENVGYM_DATA``, or ``shared/data`` beside the checkout."""
    named = os.environ.get("ENVGYM_DATA")
    beside = [p / "shared" / "data" for p in Path(__file__).resolve().parents]
    folder = next(p for p in ([Path(named)] if named else beside) if p.is_dir())
    monkeypatch.setenv("ENVGYM_DATA", str(folder))
    return folder
