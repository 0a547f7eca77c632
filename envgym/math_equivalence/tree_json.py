"""Scalars as JSON for the worker: nested lists whose first item names the node."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.tree import Add, Const, FunctionCall, Mul, Num, Percent, Pow, Sym, Tree

__all__ = ["Node", "to_wire"]

Node = list["str | Node"]
"""``["num", "3", "a"]`` (3/10 in hex), ``["sym", "x"]``, ``["const", "pi"]``, ``["call", "sin", ...]``."""


def to_wire(tree: Tree) -> Node:
    """Return a scalar as JSON-ready lists; raise ``TypeError`` for a series, a relation or words."""
    match tree:
        case Num(value):  # hexadecimal, which converts in linear time
            return ["num", f"{value.numerator:x}", f"{value.denominator:x}"]
        case Sym(name):
            return ["sym", name]
        case Const(name):
            return ["const", name]
        case Add(terms):
            return ["add", *map(to_wire, terms)]
        case Mul(factors):
            return ["mul", *map(to_wire, factors)]
        case Percent(value):
            return to_wire(Mul((value, Num(Fraction(1, 100)))))
        case Pow(base, exponent):
            return ["pow", to_wire(base), to_wire(exponent)]
        case FunctionCall(name, arguments):
            return ["call", name, *map(to_wire, arguments)]
        case _:
            raise TypeError(f"{type(tree).__name__} is not a scalar")
