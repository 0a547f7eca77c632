"""Observations in shared memory: what ``gymnasium.vector.AsyncVectorEnv`` wants of a space by default.

Each environment has a slot that its worker writes and the caller reads, with the length of the text in front.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any, cast, overload

from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from envgym.records import Observation, from_json, to_json

__all__ = ["SharedObservations", "register_space"]

_SLOT_BYTES = 1 << 20
"""Greatest size of one observation; memory that is not used is never touched."""
_LENGTH_BYTES = 8


class SharedObservations(Sequence[Observation]):
    """The latest observation of every environment, read when it is asked for; a deep copy is a tuple."""

    def __init__(self, memory: Any, count: int) -> None:
        self._memory = memoryview(memory).cast("B")
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Observation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Observation, ...]: ...
    def __getitem__(self, index: int | slice) -> Observation | tuple[Observation, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._count)))
        start = range(self._count)[index] * _SLOT_BYTES + _LENGTH_BYTES
        length = int.from_bytes(self._memory[start - _LENGTH_BYTES : start], "little")
        # Nothing is written before the first reset.
        return from_json(Observation, bytes(self._memory[start : start + length])) if length else Observation()

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[Observation, ...]:
        return tuple(self)


def register_space(kind: type) -> None:
    """Teach Gymnasium to share the observations of a space of this ``kind``."""
    create_shared_memory.register(kind, _create)
    read_from_shared_memory.register(kind, cast(Any, _read))  # its type knows arrays and tuples alone
    write_to_shared_memory.register(kind, _write)


def _create(space: Any, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.RawArray("B", n * _SLOT_BYTES)


def _read(space: Any, shared_memory: Any, n: int = 1) -> SharedObservations:
    return SharedObservations(shared_memory, n)


def _write(space: Any, index: int, value: Observation, shared_memory: Any) -> None:
    text = to_json(value).encode()
    if len(text) > _SLOT_BYTES - _LENGTH_BYTES:
        raise ValueError(
            f"an observation of {len(text)} bytes does not fit into shared memory: make the environments with "
            "vector_kwargs={'shared_memory': False}"
        )
    start = index * _SLOT_BYTES
    whole = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    memoryview(shared_memory).cast("B")[start : start + len(whole)] = whole
