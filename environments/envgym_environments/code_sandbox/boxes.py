"""Sandboxes and limits for a set of tests."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from envgym.env.episode_services import EpisodeServices
from envgym.sandbox.interface import Limits, Sandbox
from envgym.verifiers.code_tests import Recording

__all__ = ["Boxes"]


class Boxes:
    """Two sandboxes, each opened when first needed.

    One is for the policy's programs, and one for test code, which no program ever enters.

    Args:
        services: opens sandboxes.
        limits: limits in effect in both.
        call_seconds: limit on one call of a program's function in seconds of processor time.
        recordings: records of reference solutions, by test suite; new ones are added.
    """

    def __init__(
        self, services: EpisodeServices, limits: Limits, call_seconds: float, recordings: dict[str, Recording]
    ) -> None:
        self.call_seconds = call_seconds
        self.recordings = recordings
        self._services = services
        self._limits = limits
        self._opened: dict[str, Sandbox] = {}

    async def program(self) -> Sandbox:
        """Return the sandbox for programs, opening it when first needed.

        Raises:
            SandboxError: none could be started.
        """
        return await self._get("program")

    async def checker(self) -> Sandbox:
        """Return the sandbox for test code, opening it when first needed.

        Raises:
            SandboxError: none could be started.
        """
        return await self._get("checker")

    async def close(self) -> None:
        """Close what is open. Safe to call twice."""
        while self._opened:
            _, sandbox = self._opened.popitem()
            await sandbox.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _get(self, name: str) -> Sandbox:
        if name not in self._opened:
            self._opened[name] = await self._services.open_sandbox(self._limits)
        return self._opened[name]
