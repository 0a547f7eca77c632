"""Procedural tasks with disjoint splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import overload

from envgym.errors import DataError, UnknownNameError
from envgym.records import Split, Task, problem_key
from envgym.seeding import derive_rng

__all__ = ["SPLITS", "ProceduralTasks", "check_split", "split_of", "stable_id"]

SPLITS: tuple[Split, ...] = ("train", "held_out")
"""Every split."""
_MAX_REDRAWS = 2000
_HELD_OUT_SHARE = 5  # of all possible problems


def check_split(split: str) -> Split:
    """Return ``split`` if it is one.

    Raises:
        UnknownNameError: it is not; the message lists the splits.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    return split


class ProceduralTasks(Sequence[Task]):
    """A sequence of ``size`` tasks, made on demand by a seeded generator.

    The key of a task's *problem* decides its split, so that the splits are disjoint for all seeds: a problem that
    training can draw is never held out, in whatever words.

    Args:
        generate: makes one task from a generator; it must set the split it is given.
        split: the split to draw tasks of.
        size: length of the sequence.
        seed: selects the sequence.
    """

    def __init__(
        self, generate: Callable[[random.Random, Split], Task], split: Split, size: int, seed: int = 0
    ) -> None:
        self._generate = generate
        self._split = split
        self._size = size
        self._seed = seed

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(f"task {index} of {self._size}")
        rng = derive_rng("task", self._seed, self._split, index % self._size)
        for _ in range(_MAX_REDRAWS):
            task = self._generate(rng, self._split)
            if split_of(task) == self._split:
                return task
        raise DataError(f"no {self._split} task in {_MAX_REDRAWS} draws: the generator makes too few problems")


def split_of(task: Task) -> Split:
    """Return the split of the task's problem: one in five is held out."""
    return "held_out" if int(problem_key(task)[:8], 16) % _HELD_OUT_SHARE == 0 else "train"


def stable_id(*parts: str) -> str:
    """Return a short id that depends on the parts alone."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:12]
