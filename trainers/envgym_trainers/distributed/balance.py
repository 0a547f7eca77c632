"""Which process learns from which units."""

from __future__ import annotations

from collections.abc import Sequence

from envgym_trainers.batch import Unit, micro_batches

__all__ = ["deal"]


def deal(units: Sequence[Unit], max_tokens: int, size: int) -> list[list[int]]:
    """Return the indices of the units of each process: whole micro-batches, in near-equal numbers of tokens.

    Micro-batches are made smaller than ``max_tokens`` where there would be too few for all processes. The largest
    are dealt first, each to the process with the fewest positions among those with the fewest micro-batches.

    Args:
        units: in any order.
        max_tokens: maximum number of positions of one micro-batch.
        size: number of processes.
    """
    if size == 1:
        return [list(range(len(units)))]
    number = {id(unit): i for i, unit in enumerate(units)}
    each = -(-sum(_positions([unit]) for unit in units) // size)
    packs = micro_batches(units, max(1, min(max_tokens, each)))
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [(0, 0, rank) for rank in range(size)]
    for pack in sorted(packs, key=_positions, reverse=True):
        count, load, rank = min(loads)
        loads[rank] = (count + 1, load + _positions(pack), rank)
        shares[rank] += [number[id(unit)] for unit in pack]
    return shares


def _positions(pack: Sequence[Unit]) -> int:
    """Return the positions of a micro-batch, padding included."""
    lengths = [len(sample) for unit in pack for sample in unit]
    return len(lengths) * max(lengths)
