"""Rows of the engine, and their grouping into forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

__all__ = ["SHARED_TOKENS", "Row", "common", "opening", "passes", "pioneers", "together"]

_PASS_TOKENS = 8192
"""Maximum number of tokens in a forward pass, padding included; a longer row gets a pass of its own."""
SHARED_TOKENS = 16
"""Shortest common prefix that is worth a copy."""
_PADDING_SHARE = 1.25
"""Tokens that a pass may run per new token."""
_PADDING_FREE = 128
"""Padding tokens that cost less than another pass."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One conversation, sampling or idle."""

    slot: int = -1
    ids: list[int] = field(default_factory=list)
    """The whole conversation, sampled ids included."""
    cached: int = 0
    """Number of ``ids`` that have keys and values in the cache."""
    version: int = -1
    """Version of the weights that made the cached keys and values."""
    budget: int = 0
    temperature: float = 1.0
    uniform: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Random numbers in [0, 1), one per token of the budget."""
    order: int = 0
    """Decides which of the rows that ask at once comes first."""
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """True if the last sampled id ends the turn."""


def together(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows that hold the same tokens, so that one forward pass serves all of them.

    Besides the members of a group at their prompt, these are conversations that went alike, as those of a
    confident policy do. Comparing all ids costs a thousandth of running them.
    """
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.cached, tuple(row.ids)), []).append(row)
    return list(groups.values())


def pioneers(groups: list[list[Row]]) -> tuple[list[list[Row]], list[list[Row]]]:
    """Split off one new group per opening that several share; run first, it lets the others copy its keys."""
    alike: dict[tuple[int, ...], list[list[Row]]] = {}
    for group in groups:
        if not group[0].cached and len(group[0].ids) >= SHARED_TOKENS:
            alike.setdefault(opening(group[0]), []).append(group)
    first = [same[0] for same in alike.values() if len(same) > 1]
    return first, [group for group in groups if group not in first]


def opening(row: Row) -> tuple[int, ...]:
    """Return the first ``SHARED_TOKENS`` ids; rows that differ in them share too short a prefix to copy."""
    return tuple(row.ids[:SHARED_TOKENS])


def common(first: list[int], second: list[int]) -> int:
    """Return the length of the common prefix of two rows.

    A binary search, because Python compares slices of lists in C, but single ids in a slow loop.
    """
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low


def passes(groups: Iterable[list[Row]]) -> Iterator[list[list[Row]]]:
    """Yield batches of groups with about as many new tokens each, the longest first, within the token limit."""
    batch: list[list[Row]] = []
    width = tokens = 0
    for group in sorted(groups, key=lambda g: len(g[0].ids) - g[0].cached, reverse=True):
        new = len(group[0].ids) - group[0].cached
        padded = (len(batch) + 1) * width
        if batch and (padded > _PASS_TOKENS or padded > _PADDING_SHARE * (tokens + new) + _PADDING_FREE):
            yield batch
            batch, tokens = [], 0
        if not batch:
            width = new
        batch.append(group)
        tokens += new
    if batch:
        yield batch
