"""Training stages: the part that ``envgym train`` runs for a recipe."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import pydantic

from envgym.errors import UserError
from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.simulation import SimulatedLoad

__all__ = ["Stage", "stages"]


class Stage(Plugin, abc.ABC):
    """One kind of training. Its ``Config`` is the whole recipe."""

    class Config(Plugin.Config):
        """Keys of every recipe."""

        stage: str = pydantic.Field(default="rl", description="a stage's name, or package.module:Class")
        seed: int = pydantic.Field(default=0, ge=0, description="fixes every draw of the run")

    config: Config

    def check(self) -> None:
        """Look for what keeps the recipe from being carried out here, before anything is made for the run.

        Quick, and never complete: the base class looks for nothing, and ``run`` refuses the rest.

        Raises:
            UserError: something that the recipe names does not exist, or does not work here.
        """

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

    def follow(self) -> None:
        """Help the first of several processes, which runs the recipe, until it ends.

        Called instead of ``run`` in all processes but the first.

        Raises:
            UserError: the stage runs in one process only.
        """
        raise UserError(f"stage {self.config.stage!r} runs in one process: leave out torchrun and --processes")

    async def simulate(self, load: SimulatedLoad, reporter: Reporter) -> dict[str, Any]:
        """Run the recipe's loop with real environments and no model; a stage cannot, by default.

        Args:
            load: rates of the model that is simulated.
            reporter: shows progress.

        Returns:
            the report, as ``envgym.runs.simulation`` prints it.

        Raises:
            UserError: the stage cannot be simulated, or the recipe cannot be carried out here.
        """
        raise UserError(f"stage {self.config.stage!r} cannot be simulated; stages that sample episodes can")

    def controls(self, names: Sequence[str]) -> list[str]:
        """Return the controls that ``names`` asks for, all of them if it is empty; a stage has none by default.

        Raises:
            UserError: the stage, or this recipe, has no such control.
        """
        del names
        raise UserError(
            f"stage {self.config.stage!r} has no controls; they are for stages that learn from a reward"
        )

    async def run_controls(
        self, folder: RunFolder, reporter: Reporter, names: Sequence[str]
    ) -> dict[str, Any] | None:
        """Run the recipe under each control and compare; continue what an earlier process left in ``folder``.

        Args:
            folder: the folder of the run, which is finished.
            reporter: shows progress.
            names: controls, as ``controls`` returned them.

        Returns:
            the comparison, as ``envgym.runs.controls`` prints it, or ``None`` if it was stopped before its end.

        Raises:
            UserError: no control could be run.
        """
        raise NotImplementedError(f"{type(self).__name__} has controls and must define run_controls")


stages: Registry[Stage] = Registry("stage", "envgym.stages", "envgym.runs.stage:Stage")
"""Every stage that is installed or registered."""
