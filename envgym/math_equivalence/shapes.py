r"""Bring answers with several written forms to one: ``x = \pm 2``, ``f(x) = 2x``, ``x = 1, y = 2``."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.tree import (
    Const,
    FunctionCall,
    Mul,
    Num,
    Pow,
    Relation,
    Series,
    Sym,
    Tree,
    negate,
    replaced,
    walk,
)

__all__ = ["INFINITY", "assigned", "expand_plus_minus", "infinity_sign", "is_name", "oriented", "system"]

INFINITY = Const("inf")
_FLIPPED = {">": "<", ">=": "<="}
_MINUS_ONE = Num(Fraction(-1))
_OF_ANGLES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_LISTS = (",", "{}", "or")


def infinity_sign(tree: Tree) -> int:
    """Return 1 or -1 for plus or minus infinity, else 0."""
    sign = 1
    while isinstance(tree, Mul) and tree.factors[0] == _MINUS_ONE and len(tree.factors) == 2:
        sign, tree = -sign, tree.factors[1]
    return sign if tree == INFINITY else 0


def expand_plus_minus(tree: Tree) -> Tree:
    r"""Return ``tree`` with ``\pm`` written out as a list; raise ``UnreadableError`` if an item holds two."""
    if isinstance(tree, Series) and tree.kind in _LISTS:
        items: list[Tree] = []
        for item in tree.items:
            expanded = expand_plus_minus(item)
            if isinstance(expanded, Series) and not isinstance(item, Series):
                items += expanded.items
            else:
                items.append(expanded)
        return Series(tree.kind, tuple(items))
    count = sum(isinstance(part, FunctionCall) and part.name == "pm" for part in walk(tree))
    if count == 0:
        return tree
    if count > 1 or isinstance(tree, Series):
        raise UnreadableError("an ambiguous plus-minus")
    return Series(",", (_signed(tree, 1), _signed(tree, -1)))


def _signed(tree: Tree, sign: int) -> Tree:
    def rule(part: Tree) -> Tree | None:
        if isinstance(part, FunctionCall) and part.name == "pm":
            return part.arguments[0] if sign > 0 else negate(part.arguments[0])
        return None

    return replaced(tree, rule)


def assigned(tree: Tree) -> tuple[Tree, Tree] | None:
    """Return (name, value) of ``x = 5``, ``x in S``, ``f(x) = 2x``, ``(x, y) = (1, 2)`` and ``x = 1, 2``."""
    match tree:
        case Relation((left, right), ("=" | "in",)):
            if is_name(left):
                return left, right
            return (right, left) if is_name(right) and tree.signs == ("=",) else None
        case Series(",", items):
            return _assigned_list(items)
        case _:
            return None


def _assigned_list(items: tuple[Tree, ...]) -> tuple[Tree, Tree] | None:
    pairs = [assigned(item) for item in items]
    name = pairs[0][0] if pairs[0] is not None else None
    values = []
    for item, pair in zip(items, pairs, strict=True):
        if pair is None and isinstance(item, Relation):
            return None
        if name is None or (pair is not None and pair[0] != name):
            return None
        values.append(item if pair is None else pair[1])
    return None if name is None else (name, Series(",", tuple(values)))


def is_name(tree: Tree) -> bool:
    r"""Return whether ``tree`` only names something: ``x``, ``f(x)``, ``\sin A``, ``|AB|``, ``a/b``."""
    match tree:
        case Sym(_, unit):
            return not unit
        case FunctionCall(name, arguments):
            if name == "abs":  # the length of a segment, but |x| = 5 leaves two values of x
                return isinstance(arguments[0], Sym) and len(arguments[0].name) > 1
            return name.startswith("call:") or (name in _OF_ANGLES and all(map(is_name, arguments)))
        case Mul((top, Pow(bottom, exponent))):
            return exponent == _MINUS_ONE and is_name(top) and is_name(bottom)
        case Series("()" | ":", items):
            return all(map(is_name, items))
        case _:
            return False


def system(tree: Tree) -> tuple[tuple[Tree, ...], tuple[Tree, ...]] | None:
    """Return (names, values) of ``x = 1, y = 2`` and ``(x, y) = (1, 2)``: one value for each of several names."""
    match tree:
        case Relation((Series("()", names), Series("()", values)), ("=",)):
            return (names, values) if len(names) == len(values) and all(map(is_name, names)) else None
        case Series("," | "()", items):
            pairs = [assigned(item) for item in items if isinstance(item, Relation)]
            known = [pair for pair in pairs if pair is not None]
            names = tuple(name for name, _ in known)
            distinct = len({str(name) for name in names}) == len(names)
            return (
                (names, tuple(value for _, value in known)) if len(known) == len(items) > 1 and distinct else None
            )
        case _:
            return None


def oriented(relation: Relation) -> Relation:
    """Return the relation with every inequality turned to ``<`` or ``<=``: ``5 > x`` as ``x < 5``."""
    if all(sign in _FLIPPED for sign in relation.signs):
        return Relation(relation.sides[::-1], tuple(_FLIPPED[sign] for sign in relation.signs[::-1]))
    return relation
