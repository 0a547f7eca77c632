"""Toy environments, and policies that do as they are told."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import toys

from envgym.plugins.spec import installed_plugins
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, ToolCall, ToolSpec

PLUGINS = Path(__file__).parent / "plugins"


class Script(Policy, PolicySession):
    """Plays actions; an exception among them is raised, a number is slept. Notes what it saw and its closing."""

    def __init__(self, *actions: Any) -> None:
        self.actions = list(actions)
        self.seen: list[Observation] = []
        self.closed = 0
        self.closing_error: Exception | None = None

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return self

    async def act(self, observation: Observation) -> Completion:
        self.seen.append(observation)
        action = self.actions.pop(0)
        if isinstance(action, float):
            await asyncio.sleep(action)
            return await self.act(observation)
        if isinstance(action, BaseException):
            raise action
        return Completion(message=action)

    async def close(self) -> None:
        self.closed += 1
        if self.closing_error is not None:
            raise self.closing_error


@pytest.fixture
def script() -> type[Script]:
    return Script


@pytest.fixture
def adder() -> Iterator[Callable[..., toys.Adder]]:
    """Make an ``Adder`` in some trouble."""
    toys.Adder.instances.clear()
    yield lambda trouble="", **settings: toys.Adder(trouble=trouble, **settings)
    toys.Adder.instances.clear()


@pytest.fixture
def say() -> Callable[..., Message]:
    """``say(text, ("tool", {arguments}), …)``: an assistant message."""

    def make(text: str = "", *calls: tuple[str, dict[str, Any]], cut: bool = False) -> Message:
        made = tuple(ToolCall(name=n, arguments=a, id=f"call_{i}") for i, (n, a) in enumerate(calls))
        return Message(role="assistant", content=text, tool_calls=made, cut=cut)

    return make


@pytest.fixture
def plugins_folder() -> Path:
    """A folder to put on ``PYTHONPATH``; it holds the module ``toys``."""
    return PLUGINS


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Put a distribution with entry points on ``sys.path``, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(distribution: str, entry_points: str) -> None:
        folder = tmp_path / f"{distribution}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points)
        importlib.invalidate_caches()
        installed_plugins.cache_clear()

    yield put
    installed_plugins.cache_clear()
