"""Ratios, matrices and vectors in the forms that mean the same."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.tree import Num, Series, Tree, divide

__all__ = ["as_vector_of", "ratio_pairs"]

_ONE = Fraction(1)
_VECTORS = ("()", "[]", "<>")


def ratio_pairs(prediction: Tree, gold: Tree) -> list[tuple[Tree, Tree]] | None:
    """Return the quotients that must agree for two ratios to be one, or ``None`` if no quotients decide it.

    ``1:2`` equals ``2:4`` and the fraction ``1/2``; ``1:2:3`` has no fraction. A ratio with a zero in front has no
    quotients.
    """
    left, right = _terms(prediction), _terms(gold)
    if left is None or right is None or len(left) != len(right):
        return None
    if left[-1] == right[-1] or _is_zero(left[-1]) or _is_zero(right[-1]):
        return list(zip(left, right, strict=True))
    return [(divide(a, left[-1]), divide(b, right[-1])) for a, b in zip(left[:-1], right[:-1], strict=True)]


def _terms(tree: Tree) -> tuple[Tree, ...] | None:
    if isinstance(tree, Series):
        return tree.items if tree.kind == ":" else None
    return (tree, Num(_ONE))


def _is_zero(tree: Tree) -> bool:
    return isinstance(tree, Num) and not tree.value


def as_vector_of(tree: Series, other: Series) -> Series:
    r"""Return ``tree`` in the form of ``other``, where both can be one vector or matrix.

    ``[[1,2],[3,4]]`` are rows of a matrix, ``(1,2)`` is one of them, and ``\langle1,2\rangle`` is ``(1,2)``.
    """
    if {tree.kind, other.kind} == {"()", "<>"}:
        return Series("()", tree.items)
    if other.kind != "matrix" or tree.kind not in _VECTORS or not tree.items:
        return tree
    rows = [item.items for item in tree.items if isinstance(item, Series) and item.kind in _VECTORS]
    if len(rows) == len(tree.items):
        return Series("matrix", tuple(Series("row", row) for row in rows))
    is_row = len(other.items) == 1
    cells = [tree.items] if is_row else [(item,) for item in tree.items]
    return Series("matrix", tuple(Series("row", row) for row in cells))
