r"""Free integers in general solutions: ``\frac{\pi}{4}+k\pi`` and ``\frac{\pi}{4}+n\pi`` name the same angles."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence import algebra
from envgym.math_equivalence.ring import Budget
from envgym.math_equivalence.tree import Add, Const, Mul, Num, Relation, Series, Sym, Tree, negate, replaced, walk

__all__ = ["aligned", "same_progression"]

_LETTERS = frozenset({"k", "n", "m", "l", "j", "K", "N"})
_COUNTERS = frozenset({"k", "n", "m"})
_POINTS = (Fraction(0), Fraction(1), Fraction(2))
_INTEGERS = Series("integers", ())


def aligned(prediction: Tree, gold: Tree) -> tuple[Tree, Tree, Sym | None]:
    r"""Return both without ``k \in \mathbb{Z}``, with the gold's name for the free integer; also a stated name.

    An integer is free where the gold says so, or where it counts turns: a multiple of pi or of degrees. Without
    the statement it may be a number in a formula, such as the angles of a polygon: then only its name is free.
    """
    stated = _stated(gold)
    bare_gold, bare_prediction = _without_statement(gold), _without_statement(prediction)
    free = stated | _turns(bare_gold)
    if len(free) != 1:
        return prediction, gold, None
    (name,) = free
    integer = name if stated else None
    mine, theirs = _variables(bare_prediction), _variables(bare_gold)
    extra = (mine - theirs) & (_LETTERS | {symbol.name for symbol in _stated(prediction)})
    if name.name in mine or len(extra) != 1:
        return bare_prediction, bare_gold, integer
    (other,) = extra
    return _with_value(bare_prediction, Sym(other), name), bare_gold, integer


def same_progression(left: Tree, right: Tree, name: Sym, budget: Budget) -> bool:
    """Return whether two expressions, linear in a free integer, take the same values: same step, same residue."""
    ours, theirs = _at(left, name), _at(right, name)
    steps = [_minus(values[1], values[0]) for values in (ours, theirs)]
    if any(
        algebra.equal(_minus(v[2], v[1]), step, budget) is not True
        for v, step in zip((ours, theirs), steps, strict=True)
    ):
        return False
    ratio = algebra.quotient(steps[0], steps[1], budget)
    shift = algebra.quotient(_minus(ours[0], theirs[0]), steps[1], budget)
    return ratio in (1, -1) and shift is not None and shift.denominator == 1


def _at(tree: Tree, name: Sym) -> list[Tree]:
    return [_with_value(tree, name, Num(value)) for value in _POINTS]


def _with_value(tree: Tree, name: Sym, value: Tree) -> Tree:
    return replaced(tree, lambda part: value if part == name else None)


def _minus(left: Tree, right: Tree) -> Tree:
    return Add((left, negate(right)))


def _items(tree: Tree) -> tuple[Tree, ...]:
    return tree.items if isinstance(tree, Series) and tree.kind == "," else (tree,)


def _is_statement(tree: Tree) -> bool:
    return isinstance(tree, Relation) and tree.signs == ("in",) and tree.sides[1] == _INTEGERS


def _stated(tree: Tree) -> set[Sym]:
    sides = [item.sides[0] for item in _items(tree) if isinstance(item, Relation) and _is_statement(item)]
    return {side for side in sides if isinstance(side, Sym)}


def _without_statement(tree: Tree) -> Tree:
    kept = tuple(item for item in _items(tree) if not _is_statement(item))
    if not kept or len(kept) == len(_items(tree)):
        return tree
    return kept[0] if len(kept) == 1 else Series(",", kept)


def _turns(tree: Tree) -> set[Sym]:
    """Return the letters of integers that multiply pi or degrees in ``tree``."""
    found = set()
    for part in walk(tree):
        if isinstance(part, Mul):
            inside = list(walk(part))
            if Const("pi") in inside or Sym("degree", unit=True) in inside:
                found |= {symbol for symbol in inside if isinstance(symbol, Sym) and symbol.name in _COUNTERS}
    return found


def _variables(tree: Tree) -> set[str]:
    return {part.name for part in walk(tree) if isinstance(part, Sym) and not part.unit}
