r"""Sets of real numbers in many forms: ``x \ge 2``, ``[2,\infty)``, ``x \ne 0``, ``\mathbb{R}\setminus\{0\}``.

Every form becomes a sorted union of intervals that do not touch. Two bounds are in order where their approximate
values are far apart; whether they are equal is asked of the exact comparison.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from envgym.math_equivalence.approximate import approximate
from envgym.math_equivalence.shapes import INFINITY, infinity_sign, is_name, oriented
from envgym.math_equivalence.tree import FunctionCall, Relation, Series, Tree, negate

__all__ = ["RealSet", "as_real_set", "same_set"]

Same = Callable[[Tree, Tree], bool]
_INFINITE = float("inf")
_CLOSE = 1e-9
_MINUS_INFINITY = negate(INFINITY)


@dataclass(frozen=True, slots=True)
class Piece:
    """One interval."""

    low: Tree
    high: Tree
    with_low: bool
    with_high: bool


@dataclass(frozen=True, slots=True)
class RealSet:
    """A union of intervals, as it was written."""

    variable: Tree | None
    """The name before the relation; ``None`` for a set without one."""
    pieces: tuple[Piece, ...]


class _UnorderedError(Exception):
    """Two bounds have no order that can be known."""


def same_set(left: RealSet, right: RealSet, same: Same) -> bool | None:
    """Return whether both are the same set; ``None`` when their bounds cannot be ordered.

    Args:
        left: set of the prediction.
        right: set of the gold.
        same: exact equality of two scalars, prediction first.
    """
    if left.variable is not None and right.variable is not None and left.variable != right.variable:
        return False
    try:
        mine, gold = _merged(left.pieces, same), _merged(right.pieces, same)
    except _UnorderedError:
        return None
    return len(mine) == len(gold) and all(
        (a.with_low, a.with_high) == (b.with_low, b.with_high) and same(a.low, b.low) and same(a.high, b.high)
        for a, b in zip(mine, gold, strict=True)
    )


def as_real_set(tree: Tree, same: Same) -> RealSet | None:
    """Return the set of reals that ``tree`` describes, or ``None`` if it is none."""
    try:
        return _read(tree, same)
    except _UnorderedError:
        return None


def _read(tree: Tree, same: Same) -> RealSet | None:
    match tree:
        case Series("or", items):
            return _joined(items, same)
        case Series(",", items) if all(isinstance(item, Relation) for item in items):
            return _all_of(items, same) or _joined(items, same)
        case Series("cup", items):
            return _joined(items, same)
        case Series("minus", (whole, removed)):
            whole_set, points = _read(whole, same), _points(removed)
            if whole_set is None or points is None:
                return None
            return RealSet(whole_set.variable, tuple(_without(whole_set.pieces, points, same)))
        case Series(("()" | "[]" | "(]" | "[)") as kind, (low, high)):
            return RealSet(None, (Piece(low, high, kind[0] == "[", kind[1] == "]"),))
        case Series("{}", items):
            return RealSet(None, tuple(Piece(item, item, True, True) for item in items))
        case Relation():
            return _of_relation(oriented(tree), same)
        case _:
            return None


def _of_relation(relation: Relation, same: Same) -> RealSet | None:
    match relation:
        case Relation((name, Series() as values), ("in",)) if is_name(name):
            inside = _read(values, same)
            return None if inside is None else RealSet(name, inside.pieces)
        case Relation((name, bound), ("!=",)) if is_name(name):
            points = bound.items if isinstance(bound, Series) else (bound,)
            whole = (Piece(_MINUS_INFINITY, INFINITY, False, False),)
            return RealSet(name, tuple(_without(whole, points, same)))
        case Relation((FunctionCall("abs", (name,)), bound), ("<" | "<=" as sign,)) if is_name(name):
            return RealSet(name, (Piece(negate(bound), bound, sign == "<=", sign == "<="),))
        case Relation((bound, FunctionCall("abs", (name,))), ("<" | "<=" as sign,)) if is_name(name):
            closed = sign == "<="
            below, above = (
                Piece(_MINUS_INFINITY, negate(bound), False, closed),
                Piece(bound, INFINITY, closed, False),
            )
            return RealSet(name, (below, above))
        case Relation((name, bound), ("<" | "<=" as sign,)) if is_name(name) and not is_name(bound):
            return RealSet(name, (Piece(_MINUS_INFINITY, bound, False, sign == "<="),))
        case Relation((bound, name), ("<" | "<=" as sign,)) if is_name(name) and not is_name(bound):
            return RealSet(name, (Piece(bound, INFINITY, sign == "<=", False),))
        case Relation((low, name, high), ("<" | "<=" as first, "<" | "<=" as second)) if is_name(name):
            return RealSet(name, (Piece(low, high, first == "<=", second == "<="),))
        case _:
            return None


def _points(tree: Tree) -> tuple[Tree, ...] | None:
    return tree.items if isinstance(tree, Series) and tree.kind == "{}" else None


def _sets(items: tuple[Tree, ...], same: Same) -> list[RealSet] | None:
    """Return the set of each item, if all have one and speak of one variable."""
    sets = [_read(item, same) for item in items]
    known = [part for part in sets if part is not None]
    variables = {part.variable for part in known if part.variable is not None}
    return known if len(known) == len(sets) and len(variables) < 2 else None


def _joined(items: tuple[Tree, ...], same: Same) -> RealSet | None:
    sets = _sets(items, same)
    return None if not sets else RealSet(sets[0].variable, tuple(piece for part in sets for piece in part.pieces))


def _all_of(items: tuple[Tree, ...], same: Same) -> RealSet | None:
    """Return the intersection, ``None`` where it is empty: ``x<1, x>5`` then means either."""
    sets = _sets(items, same)
    if not sets:
        return None
    pieces = sets[0].pieces
    for other in sets[1:]:
        pieces = tuple(common for a in pieces for b in other.pieces if (common := _common(a, b, same)) is not None)
    return RealSet(sets[0].variable, pieces) if pieces else None


def _common(a: Piece, b: Piece, same: Same) -> Piece | None:
    low_order, high_order = _order(a.low, b.low, same), _order(a.high, b.high, same)
    with_low = (a.with_low and b.with_low) if low_order == 0 else a.with_low if low_order > 0 else b.with_low
    with_high = (
        (a.with_high and b.with_high) if high_order == 0 else a.with_high if high_order < 0 else b.with_high
    )
    low, high = a.low if low_order > 0 else b.low, a.high if high_order < 0 else b.high
    span = _order(low, high, same)
    return (
        None if span > 0 or (span == 0 and not (with_low and with_high)) else Piece(low, high, with_low, with_high)
    )


def _without(pieces: tuple[Piece, ...], points: tuple[Tree, ...], same: Same) -> Iterator[Piece]:
    """Yield the intervals that are left when ``points`` are taken out."""
    for piece in pieces:
        for point in sorted(points, key=functools.cmp_to_key(functools.partial(_order, same=same))):
            at_low, at_high = _order(piece.low, point, same), _order(point, piece.high, same)
            if at_low < 0 and at_high < 0:
                yield Piece(piece.low, point, piece.with_low, False)
            if at_low == 0 or (at_low < 0 and at_high < 0):
                piece = Piece(point, piece.high, False, piece.with_high)
            elif at_high == 0:
                piece = Piece(piece.low, point, piece.with_low, False)
        yield piece


def _merged(pieces: tuple[Piece, ...], same: Same) -> list[Piece]:
    """Return the intervals in order, those that overlap or share a bound that one of them holds joined."""
    for piece in pieces:
        if _order(piece.low, piece.high, same) > 0:
            return list(pieces)  # a reversed interval is left alone, and equals only itself

    def by_low(a: Piece, b: Piece) -> int:
        return _order(a.low, b.low, same) or b.with_low - a.with_low

    merged: list[Piece] = []
    for piece in sorted(pieces, key=functools.cmp_to_key(by_low)):
        last = merged[-1] if merged else None
        gap = 1 if last is None else _order(piece.low, last.high, same)
        if last is None or gap > 0 or (gap == 0 and not (piece.with_low or last.with_high)):
            merged.append(piece)
            continue
        order = _order(piece.high, last.high, same)
        high, with_high = (piece.high, piece.with_high) if order > 0 else (last.high, last.with_high)
        merged[-1] = Piece(last.low, high, last.with_low, with_high or (order == 0 and piece.with_high))
    return merged


def _order(left: Tree, right: Tree, same: Same) -> int:
    """Return -1, 0 or 1; raise ``_UnorderedError`` if neither values nor equality tell."""
    a, b = _position(left), _position(right)
    if a == b and abs(a) == _INFINITE:
        return 0
    if abs(a) == _INFINITE or abs(b) == _INFINITE or abs(a - b) > _CLOSE * (1 + abs(a) + abs(b)):
        return -1 if a < b else 1
    if same(left, right):
        return 0
    raise _UnorderedError


def _position(tree: Tree) -> float:
    sign = infinity_sign(tree)
    value = sign * _INFINITE if sign else approximate(tree)
    if value is None:
        raise _UnorderedError
    return value
