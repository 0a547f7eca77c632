"""One key for proof problems that differ in names, in the order of premises, or in that of commutative parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from envgym.verifiers.logic import Formula
from envgym.verifiers.logic.formulas import Atom, Binary, Not, Quantified

__all__ = ["proof_key"]

_ROUNDS = 3
_COMMUTE = ("&", "|", "<->")


def proof_key(premises: Sequence[Formula], goal: Formula) -> str:
    """Return a key that equal problems share, whatever their names.

    Names are told apart by the places where they stand: colour refinement (Weisfeiler and Leman 1968). Problems
    that it cannot tell apart share a key, so that they are never split.
    """
    formulas = [("premise", p) for p in premises] + [("goal", goal)]
    colours: dict[str, str] = defaultdict(str)
    for _ in range(_ROUNDS):
        places: dict[str, list[str]] = defaultdict(list)
        for side, formula in formulas:
            _visit(formula, side, colours, {}, places)
        colours = defaultdict(str, {n: _hash(colours[n], *sorted(seen)) for n, seen in places.items()})
    return _hash(*sorted(_hash(side, _form(formula, colours, {})) for side, formula in formulas))


def _visit(
    formula: Formula, around: str, colours: dict[str, str], bound: dict[str, str], places: dict[str, list[str]]
) -> None:
    """Note, for each name that is free in ``formula``, where it stands: what is around it, and its position."""
    match formula:
        case Atom(name, terms):
            form = _form(formula, colours, bound)
            for position, one in enumerate((name, *terms)):
                if one not in bound:
                    places[one].append(_hash(around, form, str(position)))
        case Not(body):
            _visit(body, _hash(around, "not"), colours, bound, places)
        case Binary(operator, left, right):
            ways = ("either", "either") if operator in _COMMUTE else ("left", "right")
            for side, other, way in ((left, right, ways[0]), (right, left, ways[1])):
                here = _hash(around, operator, way, _form(other, colours, bound))
                _visit(side, here, colours, bound, places)
        case Quantified(quantifier, variable, body):
            inner = {**bound, variable: f"bound {len(bound)}"}
            _visit(body, _hash(around, quantifier), colours, inner, places)


def _form(formula: Formula, colours: dict[str, str], bound: dict[str, str]) -> str:
    def of(name: str) -> str:
        return bound.get(name) or colours[name]

    match formula:
        case Atom(name, terms):
            return _hash("atom", of(name), *map(of, terms))
        case Not(body):
            return _hash("not", _form(body, colours, bound))
        case Binary(operator, left, right):
            sides = [_form(side, colours, bound) for side in (left, right)]
            return _hash(operator, *(sorted(sides) if operator in _COMMUTE else sides))
        case Quantified(quantifier, variable, body):
            inner = {**bound, variable: f"bound {len(bound)}"}
            return _hash(quantifier, _form(body, colours, inner))


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=8).hexdigest()
