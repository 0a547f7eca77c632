"""Contract tests for the trainer's plugins, inherited like those of ``envgym.testing``. Needs pytest 9.2."""

from __future__ import annotations

from envgym_trainers.testing.engines import EngineContract
from envgym_trainers.testing.objectives import ObjectiveContract

__all__ = ["EngineContract", "ObjectiveContract"]
