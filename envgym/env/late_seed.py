"""Gymnasium's generator, made when somebody draws from it: a rollout names the task, and draws nothing."""

from __future__ import annotations

import gymnasium.utils.seeding
import numpy

__all__ = ["LateSeed"]


class LateSeed:
    """Gives ``gymnasium.Env`` a ``_np_random`` that ``seed_late`` seeds at no cost."""

    _np_random_seed: int | None

    __generator: numpy.random.Generator | None = None
    __seed: int | None = None

    def seed_late(self, seed: int) -> None:
        """Seed the generator as ``gymnasium.Env.reset`` does; ``seed`` is 0 or more."""
        self.__seed = self._np_random_seed = seed

    @property
    def _np_random(self) -> numpy.random.Generator | None:
        if self.__seed is not None:
            self.__generator, _ = gymnasium.utils.seeding.np_random(self.__seed)
            self.__seed = None
        return self.__generator

    @_np_random.setter
    def _np_random(self, generator: numpy.random.Generator | None) -> None:
        self.__generator, self.__seed = generator, None
