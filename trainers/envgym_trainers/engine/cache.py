"""Keys and values of conversations, in pools of rows of one length, within a budget of memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from envgym_trainers.engine.interface import SamplingParams

__all__ = ["Cache", "Pool", "Row"]

_SHORTEST = 64
"""Tokens of the rows in the smallest pool; each next one's are twice as long."""
_GROWTH = 4
"""Rows that a pool grows by at least, or by half of what it has."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One conversation, sampling or idle."""

    pool: Pool | None = None
    """Where its keys and values are stored, if anywhere."""
    slot: int = -1
    """Its place in the pool."""
    ids: list[int] = field(default_factory=list)
    """The whole conversation, sampled ids included."""
    cached: int = 0
    """Number of ``ids`` that have keys and values in the cache."""
    version: int = -1
    """Version of the weights that made the cached keys and values."""
    params: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=1))
    uniform: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Random numbers in [0, 1), one per token of the budget."""
    order: int = 0
    """Decides which of the rows that ask at once comes first."""
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """True if the last sampled id ends the turn."""

    @property
    def home(self) -> Pool:
        """The pool, of a row that has one.

        Raises:
            RuntimeError: nothing was reserved for the row.
        """
        if self.pool is None:
            raise RuntimeError("no room was reserved for a conversation")
        return self.pool


class Pool:
    """Rows of up to ``capacity`` tokens: keys and values, [rows, heads, capacity, D] for each layer.

    The rows that sample stand in the first slots, so that a decoding step reads them as one view.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.holders: list[Row | None] = []
        """The conversation in each slot."""
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of a layer; states that it writes, [1, heads, N, D], say how they are stored."""
        if index not in self._layers:
            # Zeros, as what no token has written is multiplied by a probability of 0.
            self._layers[index] = (self._zeros(key, len(self.holders)), self._zeros(value, len(self.holders)))
        return self._layers[index]

    def resize(self, count: int) -> None:
        """Have ``count`` slots; the holders stand in the lowest."""
        kept = min(count, len(self.holders))
        length = max((row.cached for row in self.holders if row is not None), default=0)
        for index, stored in self._layers.items():
            new = self._zeros(stored[0], count), self._zeros(stored[1], count)
            for there, here in zip(new, stored, strict=True):
                there[:kept, :, :length] = here[:kept, :, :length]
            self._layers[index] = new
        self.holders = self.holders[:kept] + [None] * (count - kept)

    def copy(self, source: int, other: Pool, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of slot ``source`` to a slot of another pool, or of this one."""
        for index, stored in self._layers.items():
            for here, there in zip(stored, other.layer(index, *stored), strict=True):
                there[target, :, :length] = here[source, :, :length]

    def swap(self, first: int, second: int) -> None:
        """Exchange two slots and their holders."""
        pair = [self.holders[first], self.holders[second]]
        length = max(row.cached for row in pair if row is not None)
        for stored in self._layers.values():
            for tensor in stored:
                kept = tensor[first, :, :length].clone()
                tensor[first, :, :length] = tensor[second, :, :length]
                tensor[second, :, :length] = kept
        for slot, row in zip((second, first), pair, strict=True):
            self.holders[slot] = row
            if row is not None:
                row.slot = slot

    def compact(self, rows: Iterable[Row]) -> None:
        """Move ``rows`` to the first slots, in any order."""
        chosen = set(rows)
        outside = [row for row in chosen if row.slot >= len(chosen)]
        if not outside:
            return
        others = [slot for slot in range(len(chosen)) if self.holders[slot] not in chosen]
        for row, slot in zip(sorted(outside, key=lambda row: row.slot), others, strict=True):
            self.swap(row.slot, slot)

    def bytes_per_token(self) -> int:
        """Return the size of one token's keys and values over all layers, as they are stored."""
        return sum(t.shape[1] * t.shape[3] * t.itemsize for stored in self._layers.values() for t in stored)

    def _zeros(self, like: Tensor, count: int) -> Tensor:
        return like.new_zeros(count, like.shape[1], self.capacity, like.shape[3])


class Cache:
    """Rows in pools of doubling length; a row moves to the next pool when it outgrows its own.

    Args:
        capacity: maximum number of tokens in a conversation.
        budget: tokens that all pools together may have room for.
    """

    def __init__(self, capacity: int, budget: int) -> None:
        self.capacity = capacity
        self.budget = budget
        sizes = [_SHORTEST]
        while sizes[-1] < capacity:
            sizes.append(2 * sizes[-1])
        self.pools = [Pool(min(size, capacity)) for size in sizes]

    @property
    def tokens(self) -> int:
        """Tokens that there is room for now."""
        return sum(len(pool.holders) * pool.capacity for pool in self.pools)

    def rows(self) -> list[Row]:
        """Return the conversations that hold a row."""
        return [row for pool in self.pools for row in pool.holders if row is not None]

    def reserve(self, row: Row, tokens: int) -> bool:
        """Give ``row`` room for ``tokens`` tokens, and keep its cached ones; false if the budget has none left."""
        if row.pool is not None and tokens <= row.pool.capacity:
            return True
        pool = next(pool for pool in self.pools if tokens <= pool.capacity)
        if None not in pool.holders and not self._grow(pool):
            return False
        slot = pool.holders.index(None)
        pool.holders[slot] = row
        if row.pool is not None:
            if row.cached:
                row.pool.copy(row.slot, pool, slot, row.cached)
            row.pool.holders[row.slot] = None
        row.pool, row.slot = pool, slot
        return True

    def release(self, row: Row) -> None:
        """Free what the row holds."""
        if row.pool is not None:
            row.pool.holders[row.slot] = None
        row.pool, row.slot, row.cached = None, -1, 0

    def clear(self) -> None:
        """Free every row and all memory."""
        for row in self.rows():
            self.release(row)
        for pool in self.pools:
            pool.resize(0)

    def _grow(self, pool: Pool) -> bool:
        """Add slots to a pool within the budget; return whether there is room for one."""
        if not self._affordable(pool):
            for other in self.pools:
                held = [row for row in other.holders if row is not None]
                if len(held) < len(other.holders):
                    other.compact(held)
                    other.resize(len(held))
        count = min(max(_GROWTH, len(pool.holders) // 2), self._affordable(pool))
        if count:
            pool.resize(len(pool.holders) + count)
        return count > 0

    def _affordable(self, pool: Pool) -> int:
        return max(0, self.budget - self.tokens) // pool.capacity
