"""A cluster whose workers live in the run's own process."""

from __future__ import annotations

from typing import ClassVar

from envgym.env.services import Services
from envgym.testing import InProcessCluster


class Beside(InProcessCluster):
    """Counts how often it was opened."""

    opened: ClassVar[int] = 0

    async def open(self, services: Services) -> None:
        """Make the workers, and count."""
        type(self).opened += 1
        await super().open(services)
