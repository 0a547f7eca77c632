"""Rows of the engine, and which of them are run together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

__all__ = ["SHARED_TOKENS", "Row", "common", "opening", "passes", "pioneers", "together"]

_PASS_TOKENS = 8192
"""Tokens of one forward pass at most, padding included; a longer row gets a pass of its own."""
SHARED_TOKENS = 16
"""Fewer tokens in common are not worth a copy."""
_PADDING_SHARE = 1.25
"""Tokens that a pass may run for each one that is new."""
_PADDING_FREE = 128
"""Tokens of padding that cost less than another pass."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One conversation that is sampling or could."""

    slot: int = -1
    ids: list[int] = field(default_factory=list)
    """Everything the conversation holds, sampled ids included."""
    cached: int = 0
    """Number of ``ids`` that have keys and values in the cache."""
    version: int = -1
    """Weights that made the cached keys and values."""
    budget: int = 0
    temperature: float = 1.0
    uniform: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Numbers in [0, 1), one for each token of the budget."""
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """The last sampled id ends the turn."""


def together(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows that hold the same tokens; what is run for one holds for all.

    Besides the prompt of a group that is its conversations that went on alike, as those of a sure policy do. To
    compare all ids costs a thousandth of running them.
    """
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.cached, tuple(row.ids)), []).append(row)
    return list(groups.values())


def pioneers(groups: list[list[Row]]) -> tuple[list[list[Row]], list[list[Row]]]:
    """Split off one new group of each opening that several share, to be run first; the others follow."""
    alike: dict[tuple[int, ...], list[list[Row]]] = {}
    for group in groups:
        if not group[0].cached and len(group[0].ids) >= SHARED_TOKENS:
            alike.setdefault(opening(group[0]), []).append(group)
    first = [same[0] for same in alike.values() if len(same) > 1]
    return first, [group for group in groups if group not in first]


def opening(row: Row) -> tuple[int, ...]:
    """Return the first ``SHARED_TOKENS`` ids: rows that differ in them have too little in common to copy."""
    return tuple(row.ids[:SHARED_TOKENS])


def common(first: list[int], second: list[int]) -> int:
    """Count the tokens that two rows have in common from the start on.

    By halves, because comparing slices of lists is a loop in C and comparing ids one by one is not.
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
