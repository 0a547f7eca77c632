"""Training stages: the part that ``envgym train`` runs for a recipe."""

from __future__ import annotations

import abc
from typing import Any

import pydantic

from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter

__all__ = ["Stage", "stages"]


class Stage(Plugin, abc.ABC):
    """One kind of training. Its ``Config`` is the whole recipe."""

    class Config(Plugin.Config):
        """Keys of every recipe."""

        stage: str = pydantic.Field(default="rl", description="a stage's name, or package.module:Class")
        seed: int = pydantic.Field(default=0, ge=0, description="fixes every draw of the run")

    config: Config

    @abc.abstractmethod
    async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
        """Run to the end, or until asked to stop; continue a run that an earlier process left in ``folder``.

        Args:
            folder: the run's folder, which holds the resolved recipe.
            reporter: shows progress.

        Returns:
            the summary, or ``None`` if the run was stopped before its end. Its ``environments`` map labels to
            intervals of the held-out reward (``Interval.as_dict()``): ``after``, and where they were measured
            ``before`` and ``gain``.

        Raises:
            UserError: the recipe cannot be carried out here.
        """


stages: Registry[Stage] = Registry("stage", "envgym.stages", "envgym.runs.stage:Stage")
"""Every stage that is installed or registered."""
