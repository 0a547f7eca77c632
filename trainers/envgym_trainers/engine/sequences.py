"""The grouping of rows into forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envgym_trainers.engine.cache import Row

__all__ = ["SHARED_TOKENS", "common", "opening", "passes", "pioneers", "together"]

_PASS_TOKENS = 4096
"""Maximum number of tokens in a forward pass; a longer row gets a pass of its own."""
SHARED_TOKENS = 16
"""Shortest common prefix that is worth a copy."""


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
    """Yield the groups in batches of at most ``_PASS_TOKENS`` new tokens each, the first row of each counted."""
    batch: list[list[Row]] = []
    tokens = 0
    for group in groups:
        new = len(group[0].ids) - group[0].cached
        if batch and tokens + new > _PASS_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(group)
        tokens += new
    if batch:
        yield batch
