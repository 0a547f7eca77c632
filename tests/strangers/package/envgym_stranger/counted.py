"""A sandbox backend that puts another one behind it, and counts."""

from __future__ import annotations

from typing import Any, ClassVar

from envgym.sandbox.interface import Backend, Limits, Sandbox
from envgym_sandboxes.bubblewrap import BubblewrapBackend


class Counted(Backend):
    """Opens bubblewrap's sandboxes and counts them."""

    class Config(Backend.Config):
        """Settings of ``Counted``."""

        start: int = 0

    config: Config
    rank = 1000
    opened: ClassVar[int] = 0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        type(self).opened = self.config.start
        self._behind = BubblewrapBackend()

    @classmethod
    def unavailable(cls) -> str | None:
        """Say why bubblewrap does not work here, or ``None``."""
        return BubblewrapBackend.unavailable()

    async def open(self, limits: Limits) -> Sandbox:
        """Open a sandbox."""
        type(self).opened += 1
        return await self._behind.open(limits)

    async def close(self) -> None:
        """Close every sandbox."""
        await self._behind.close()
