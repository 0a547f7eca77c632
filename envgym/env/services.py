"""Services that environments need from outside. Nothing is global: each environment is handed its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from envgym.env.shared_tools import SharedTools, ToolSettings
from envgym.errors import SandboxError, UnknownNameError, UserError
from envgym.sandbox.interface import Backend, Limits, Sandbox
from envgym.sandbox.selection import AUTO, sandboxes, select_backend
from envgym.verifiers.judge import Judge

__all__ = ["Closeable", "Services"]


class Closeable(Protocol):
    """What a run closes at its end."""

    async def close(self) -> None:
        """Free what it holds. Safe to call twice."""


C = TypeVar("C", bound=Closeable)


class Services:
    """The services of one run, shared by its environments and closed at its end.

    Args:
        sandbox: a backend's name, or ``"auto"`` for the best isolated one this machine has.
        sandbox_settings: fields of that backend's ``Config``; see ``select_backend``.
        judge: a language model that grades, as ``URL#MODEL``; ``""`` for none.
        judge_settings: fields of ``Judge.Config``.
        tools: limits and cache of the environments' tools.

    Raises:
        UnknownNameError: no such backend.
        UserError: the judge's address is not one of a server, or it has no such setting.
    """

    def __init__(
        self,
        sandbox: str = AUTO,
        sandbox_settings: Mapping[str, Any] | None = None,
        judge: str = "",
        judge_settings: Mapping[str, Any] | None = None,
        tools: ToolSettings | None = None,
    ) -> None:
        known = (AUTO, *sandboxes.plugins())
        if sandbox not in known and ":" not in sandbox:
            raise UnknownNameError("sandbox", sandbox, known)
        self.sandbox_name = sandbox
        self._settings = dict(sandbox_settings or {})
        self._backend: Backend | None = None
        self._choosing = threading.Lock()
        if judge_settings and not judge:
            raise UserError(f"no judge is named, and yet it has settings: {', '.join(sorted(judge_settings))}")
        self._judge_name, self._judge_settings = judge, dict(judge_settings or {})
        url, _, model = judge.partition("#")
        self._judge = Judge(url, model=model, **self._judge_settings) if judge else None
        self.tools = SharedTools(tools)
        """Permits and kept results of the environments' tools."""
        self._kept: dict[Hashable, Closeable] = {}

    def backend(self) -> Backend:
        """Return the sandbox backend, made on first use.

        Raises:
            UserError: no such backend, or none that this machine can run.
        """
        with self._choosing:
            if self._backend is None:
                self._backend = select_backend(self.sandbox_name, self._settings)
            return self._backend

    async def open_sandbox(self, limits: Limits) -> Sandbox:
        """Open a sandbox; the caller closes it.

        Raises:
            SandboxError: none could be started.
        """
        try:
            # In a thread: choosing a backend imports it and asks whether it works, and every episode would wait.
            backend = self._backend if self._backend is not None else await asyncio.to_thread(self.backend)
            return await backend.open(limits)
        except OSError as error:
            raise SandboxError(f"the sandbox backend failed: {error}") from error

    def judge(self) -> Judge:
        """Return the judge.

        Raises:
            UserError: none was named.
        """
        if self._judge is None:
            raise UserError(
                "this needs a judge, and none is named: give --judge URL#MODEL, or judge = 'URL#MODEL' in the "
                "recipe; URL is that of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1"
            )
        return self._judge

    def keep(self, key: Hashable, make: Callable[[], C]) -> C:
        """Return what ``make`` made for ``key``, once: a client with its connections, closed with the run.

        Args:
            key: an environment's class, and whatever settings tell one from another.
            make: makes it, where it is asked for the first time.
        """
        with self._choosing:
            if key not in self._kept:
                self._kept[key] = make()
        kept: Any = self._kept[key]
        made: C = kept
        return made

    async def close(self) -> None:
        """Free the backend, the judge's connections and what was kept. Safe to call twice."""
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            await connection.close()
        if self._judge is not None:
            await self._judge.close()
        if self._backend is not None:
            backend, self._backend = self._backend, None
            await backend.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # the copy of an environment shares them

    def to_json(self) -> str:
        """Return what others like these are made of, on whatever machine; see ``from_json``.

        Limits of tools are counted in each process for itself.
        """
        tools = self.tools.settings.model_dump()
        return json.dumps((self.sandbox_name, self._settings, self._judge_name, self._judge_settings, tools))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make services of what ``to_json`` returned.

        Raises:
            UserError: this process has no such backend.
        """
        sandbox, settings, judge, judge_settings, tools = json.loads(text)
        return cls(sandbox, settings, judge, judge_settings, ToolSettings(**tools))

    def __reduce__(self) -> tuple[Any, ...]:
        settings = (self.sandbox_name, self._settings, self._judge_name, self._judge_settings, self.tools.settings)
        return type(self), settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
