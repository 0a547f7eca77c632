r"""Bring answers with several written forms to one: ``x = \pm 2``, ``x = 2, -2``, ``x > 5``, ``f(x) = 2x``."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.tree import (
    Add,
    Const,
    FunctionCall,
    Mul,
    Num,
    Percent,
    Pow,
    Relation,
    Series,
    Sym,
    Tree,
    negate,
    walk,
)

__all__ = ["INFINITY", "as_interval", "assigned", "expand_plus_minus", "infinity_sign", "oriented"]

INFINITY = Const("inf")
_FLIPPED = {">": "<", ">=": "<="}
_MINUS_ONE = Num(Fraction(-1))


def infinity_sign(tree: Tree) -> int:
    """Return 1 or -1 for plus or minus infinity, else 0."""
    sign = 1
    while isinstance(tree, Mul) and tree.factors[0] == _MINUS_ONE and len(tree.factors) == 2:
        sign, tree = -sign, tree.factors[1]
    return sign if tree == INFINITY else 0


def expand_plus_minus(tree: Tree) -> Tree:
    r"""Return ``tree`` with ``\pm`` written out as a list; raise ``UnreadableError`` if an item holds two."""
    if isinstance(tree, Series) and tree.kind in (",", "{}"):
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
    match tree:
        case FunctionCall("pm", (value,)):
            return value if sign > 0 else negate(value)
        case FunctionCall(name, arguments):
            return FunctionCall(name, tuple(_signed(argument, sign) for argument in arguments))
        case Add(terms):
            return Add(tuple(_signed(term, sign) for term in terms))
        case Mul(factors):
            return Mul(tuple(_signed(factor, sign) for factor in factors))
        case Pow(base, exponent):
            return Pow(_signed(base, sign), _signed(exponent, sign))
        case Percent(value):
            return Percent(_signed(value, sign))
        case Relation(sides, signs):
            return Relation(tuple(_signed(side, sign) for side in sides), signs)
        case _:
            return tree


def assigned(tree: Tree) -> tuple[Tree, Tree] | None:
    """Return (name, value) of ``x = 5``, ``x in S``, ``f(x) = 2x``, ``(x, y) = (1, 2)`` and ``x = 1, 2``."""
    match tree:
        case Relation((left, right), ("=" | "in",)):
            if _is_name(left):
                return left, right
            return (right, left) if _is_name(right) and tree.signs == ("=",) else None
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


def _is_name(tree: Tree) -> bool:
    match tree:
        case Sym(_, unit):
            return not unit
        case FunctionCall(name):
            return name.startswith("call:")
        case Series("()", items):
            return all(isinstance(item, Sym) for item in items)
        case _:
            return False


def oriented(relation: Relation) -> Relation:
    """Return the relation with every inequality turned to ``<`` or ``<=``: ``5 > x`` as ``x < 5``."""
    if all(sign in _FLIPPED for sign in relation.signs):
        return Relation(relation.sides[::-1], tuple(_FLIPPED[sign] for sign in relation.signs[::-1]))
    return relation


def as_interval(tree: Tree) -> tuple[Tree, Series] | None:
    """Return (variable, interval) of ``x > 5`` or ``1 < x <= 5``, the union for a list, ``None`` otherwise."""
    if isinstance(tree, Series) and tree.kind == ",":
        parts = [as_interval(item) for item in tree.items]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or any(part[0] != known[0][0] for part in known):
            return None
        return known[0][0], Series("cup", tuple(part[1] for part in known))
    if not isinstance(tree, Relation):
        return None
    relation = oriented(tree)
    if not all(sign in ("<", "<=") for sign in relation.signs):
        return None
    match relation.sides:
        case (Sym() as name, bound):
            sides, variable = (negate(INFINITY), bound), name
            kind = "(" + _closer(relation.signs[0])
        case (bound, Sym() as name):
            sides, variable = (bound, INFINITY), name
            kind = _opener(relation.signs[0]) + ")"
        case (low, Sym() as name, high):
            sides, variable = (low, high), name
            kind = _opener(relation.signs[0]) + _closer(relation.signs[1])
        case _:
            return None
    return variable, Series(kind, sides)


def _opener(sign: str) -> str:
    return "[" if sign == "<=" else "("


def _closer(sign: str) -> str:
    return "]" if sign == "<=" else ")"
