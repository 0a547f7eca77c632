"""Formulas of first-order logic without functions or equality, as text and as trees.

Notation, loosest first: ``forall x y. A`` and ``exists x. A`` (which extend as far right as they can),
``A <-> B``, ``A -> B``, ``A | B``, ``A & B``, ``~A``, and atoms: ``p``, ``likes(anna, x)``. Arrows associate to
the right, the other connectives to the left. The Unicode signs of logic are read too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "MAX_CHARS",
    "WRITTEN_CHARS",
    "Atom",
    "Binary",
    "Formula",
    "FormulaError",
    "Not",
    "Quantified",
    "atoms",
    "free_terms",
    "read_formula",
]

MAX_CHARS = 200
"""Maximum number of characters of a formula as its author wrote it."""
WRITTEN_CHARS = 2000
"""Maximum number of characters of ``str(formula)``, which spells signs out and sets every bracket."""
MAX_DEPTH = 16
"""Maximum depth of connectives and quantifiers; brackets may be twice as deep."""

Operator = Literal["<->", "->", "|", "&"]
Quantifier = Literal["forall", "exists"]

_LOOSEST_FIRST: tuple[Operator, ...] = ("<->", "->", "|", "&")
_PLAIN = {"¬": "~", "!": "~", "∧": "&", "∨": "|", "→": "->", "=>": "->", "↔": "<->", "<=>": "<->"}
_QUANTIFIERS: dict[str, Quantifier] = {"forall": "forall", "∀": "forall", "exists": "exists", "∃": "exists"}
_TOKEN = re.compile(r"<->|<=>|->|=>|[~!&|().,¬∧∨→↔∀∃]|[a-z][a-z0-9_]*", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class FormulaError(ValueError):
    """The text is not a formula, or the formula is over a cap."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A proposition, or a predicate of variables and constants."""

    name: str
    terms: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.terms)})" if self.terms else self.name


@dataclass(frozen=True, slots=True)
class Not:
    """A negation."""

    body: Formula

    def __str__(self) -> str:
        return f"~{_inside(self.body, Binary, Quantified)}"


@dataclass(frozen=True, slots=True)
class Binary:
    """Two formulas and their connective."""

    operator: Operator
    left: Formula
    right: Formula

    def __str__(self) -> str:
        return f"{self._side(self.left)} {self.operator} {self._side(self.right)}"

    def _side(self, side: Formula) -> str:
        """Return the text of an operand, in brackets unless it binds tighter."""
        if isinstance(side, Binary):
            tighter = _LOOSEST_FIRST.index(side.operator) > _LOOSEST_FIRST.index(self.operator)
            return str(side) if tighter else f"({side})"
        return _inside(side, Quantified)


@dataclass(frozen=True, slots=True)
class Quantified:
    """A formula under a quantifier: it holds for every, or for some, value of a variable."""

    quantifier: Quantifier
    variable: str
    body: Formula

    def __str__(self) -> str:
        return f"{self.quantifier} {self.variable}. {self.body}"


Formula = Atom | Not | Binary | Quantified


def _inside(formula: Formula, *bracketed: type[Formula]) -> str:
    return f"({formula})" if isinstance(formula, bracketed) else str(formula)


def atoms(formula: Formula) -> Iterator[Atom]:
    """Yield every occurrence of an atom, from left to right."""
    match formula:
        case Atom():
            yield formula
        case Binary(_, left, right):
            yield from atoms(left)
            yield from atoms(right)
        case Not(body) | Quantified(_, _, body):
            yield from atoms(body)


def free_terms(formula: Formula) -> set[str]:
    """Return the terms that no quantifier binds: in a closed formula, its constants."""
    match formula:
        case Atom(_, terms):
            return set(terms)
        case Not(body):
            return free_terms(body)
        case Binary(_, left, right):
            return free_terms(left) | free_terms(right)
        case Quantified(_, variable, body):
            return free_terms(body) - {variable}


def read_formula(text: str, *, max_chars: int = MAX_CHARS) -> Formula:
    """Parse a formula, in time linear in the length of ``text``.

    Args:
        text: formula in the notation above.
        max_chars: maximum length of ``text``; with ``WRITTEN_CHARS``, ``str`` of every formula that was read is
            read as that formula again.

    Raises:
        FormulaError: ``text`` is not a formula, is longer than ``max_chars``, or is nested deeper than 16.
    """
    if len(text) > max_chars:
        raise FormulaError(f"a formula has {max_chars} characters at most, this one has {len(text)}")
    reader = _Reader(text)
    formula = reader.binary(0)
    reader.end()
    if _depth(formula) > MAX_DEPTH:
        raise FormulaError(f"nested deeper than {MAX_DEPTH}")
    return formula


def _depth(formula: Formula) -> int:
    match formula:
        case Atom():
            return 0
        case Binary(_, left, right):
            return 1 + max(_depth(left), _depth(right))
        case Not(body) | Quantified(_, _, body):
            return 1 + _depth(body)


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        if "".join(self._tokens) != "".join(text.split()):
            odd = next(c for c in _TOKEN.sub("", text) if not c.isspace())
            raise FormulaError(f"{odd!r} is not part of the notation")
        self._next = 0
        self._depth = 0

    @property
    def _token(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def end(self) -> None:
        if self._token:
            raise FormulaError(f"{self._token!r} is left over")

    def binary(self, level: int) -> Formula:
        """Read a chain of one connective, or a formula that binds tighter."""
        if level == len(_LOOSEST_FIRST):
            return self._unary()
        operator = _LOOSEST_FIRST[level]
        parts = [self.binary(level + 1)]
        while _PLAIN.get(self._token, self._token) == operator:
            self._next += 1
            parts.append(self.binary(level + 1))
            if len(parts) > MAX_DEPTH + 1:
                raise FormulaError(f"more than {MAX_DEPTH} connectives in a row")
        if operator in ("->", "<->"):
            whole = parts.pop()
            while parts:
                whole = Binary(operator, parts.pop(), whole)
            return whole
        whole = parts[0]
        for part in parts[1:]:
            whole = Binary(operator, whole, part)
        return whole

    def _unary(self) -> Formula:
        token = self._token
        if _PLAIN.get(token, token) == "~":
            self._next += 1
            return Not(self._nested(self._unary))
        if token in _QUANTIFIERS:
            self._next += 1
            return self._quantified(_QUANTIFIERS[token])
        if token == "(":
            self._next += 1
            inner = self._nested(lambda: self.binary(0))
            self._expect(")")
            return inner
        return self._atom()

    def _quantified(self, quantifier: Quantifier) -> Formula:
        variables = [self._name("a variable")]
        while self._token not in (".", ""):
            variables.append(self._name("a variable or '.'"))
        if len(variables) > MAX_DEPTH:
            raise FormulaError(f"more than {MAX_DEPTH} variables in a row")
        self._expect(".")
        body = self._nested(lambda: self.binary(0))
        for variable in reversed(variables):
            body = Quantified(quantifier, variable, body)
        return body

    def _atom(self) -> Atom:
        name = self._name("a formula")
        if self._token != "(":
            return Atom(name)
        self._next += 1
        terms = [self._name("a term")]
        while self._token == ",":
            self._next += 1
            terms.append(self._name("a term"))
        self._expect(")")
        return Atom(name, tuple(terms))

    def _name(self, wanted: str) -> str:
        token = self._token
        if not _NAME.fullmatch(token) or token in _QUANTIFIERS:
            raise FormulaError(f"expected {wanted}, found {token or 'the end'!r}")
        self._next += 1
        return token

    def _expect(self, token: str) -> None:
        if self._token != token:
            raise FormulaError(f"expected {token!r}, found {self._token or 'the end'!r}")
        self._next += 1

    def _nested(self, rule: Callable[[], Formula]) -> Formula:
        self._depth += 1
        if self._depth > 2 * MAX_DEPTH:
            raise FormulaError(f"nested deeper than {MAX_DEPTH}")
        inner = rule()
        self._depth -= 1
        return inner
