"""Read formulas from text.

Notation, loosest first: ``forall x y. A`` and ``exists x. A`` (reaching as far right as they can), ``A <-> B``,
``A -> B``, ``A | B``, ``A & B``, ``~A``, and atoms: ``p``, ``likes(anna, x)``. Arrows group to the right, the
others to the left. The printed signs of logic are read too.
"""

from __future__ import annotations

import functools

import lark

from envgym.verifiers.logic.formulas import Atom, Binary, Formula, Not, Operator, Quantified, Quantifier

__all__ = ["MAX_CHARS", "WRITTEN_CHARS", "FormulaError", "read_formula"]

MAX_CHARS = 200
"""Characters of one formula, as an author wrote it."""
WRITTEN_CHARS = 2000
"""Characters of ``str(formula)``, which spells signs out and sets every bracket."""
MAX_DEPTH = 16
"""Connectives and quantifiers inside each other."""

# A quantifier inside an operand is ambiguous on paper: in `p & forall x. q | r` the bar could end it. LALR shifts
# rather than reduces, which is the rule that a quantifier reaches as far right as it can.
_GRAMMAR = r"""
?formula: implication | implication _IFF formula       -> equivalence
?implication: disjunction | disjunction _IMPLIES implication
?disjunction: conjunction | disjunction _OR conjunction
?conjunction: unary | conjunction _AND unary
?unary: _NOT unary                                     -> negation
    | (FORALL | EXISTS) NAME+ "." formula              -> quantified
    | "(" formula ")"
    | NAME ["(" NAME ("," NAME)* ")"]                  -> atom

FORALL.1: /forall(?![a-z0-9_])|∀/
EXISTS.1: /exists(?![a-z0-9_])|∃/
NAME: /[a-z][a-z0-9_]*/
_IFF: "<->" | "<=>" | "↔"
_IMPLIES: "->" | "=>" | "→"
_OR: "|" | "∨"
_AND: "&" | "∧"
_NOT: "~" | "!" | "¬"
%ignore /\s+/
"""
_EXPECTED = {"NAME": "a name", "DOT": "'.'", "COMMA": "','", "RPAR": "')'"}


class FormulaError(ValueError):
    """Text that is not a formula, or a formula over a cap."""


class _TreeBuilder(lark.Transformer[lark.Token, Formula]):
    """Builds formulas while LALR reduces, so that no parse tree is made and nothing recurses on the input."""

    def equivalence(self, sides: list[Formula]) -> Formula:
        return self._binary("<->", sides)

    def implication(self, sides: list[Formula]) -> Formula:
        return self._binary("->", sides)

    def disjunction(self, sides: list[Formula]) -> Formula:
        return self._binary("|", sides)

    def conjunction(self, sides: list[Formula]) -> Formula:
        return self._binary("&", sides)

    def negation(self, parts: list[Formula]) -> Formula:
        return _capped(Not(parts[0]))

    def quantified(self, parts: list[lark.Token | Formula]) -> Formula:
        sign, *variables, body = parts
        assert isinstance(sign, lark.Token)
        assert not isinstance(body, lark.Token)
        quantifier: Quantifier = "forall" if sign.type == "FORALL" else "exists"
        for variable in reversed(variables):
            body = _capped(Quantified(quantifier, str(variable), body))
        return body

    def atom(self, names: list[lark.Token | None]) -> Formula:
        return Atom(str(names[0]), tuple(str(name) for name in names[1:] if name is not None))

    @staticmethod
    def _binary(operator: Operator, sides: list[Formula]) -> Formula:
        left, right = sides
        return _capped(Binary(operator, left, right))


_PARSER = lark.Lark(_GRAMMAR, start="formula", parser="lalr", lexer="basic", transformer=_TreeBuilder())


@functools.lru_cache(maxsize=4096)
def read_formula(text: str, *, max_chars: int = MAX_CHARS) -> Formula:
    """Read a formula. Time is linear in the length of ``text``.

    Args:
        text: in the notation above.
        max_chars: longest text that is read at all; with ``WRITTEN_CHARS``, every formula that was read can be
            written by ``str`` and read again as the same formula.

    Raises:
        FormulaError: ``text`` is not a formula, is longer than ``max_chars``, or nests deeper than 16.
    """
    if len(text) > max_chars:
        raise FormulaError(f"a formula has {max_chars} characters at most, this one has {len(text)}")
    try:
        formula: Formula = _PARSER.parse(text)  # type: ignore[assignment]  # lark types it as a tree
    except lark.UnexpectedCharacters as error:
        raise FormulaError(f"{error.char!r} is not part of the notation") from None
    except lark.UnexpectedToken as error:
        raise FormulaError(_complaint(error)) from None
    return formula


def _complaint(error: lark.UnexpectedToken) -> str:
    accepted = error.accepts or set()
    if "$END" in accepted:
        return f"{str(error.token)!r} is left over"
    names = " or ".join(_EXPECTED.get(name, name) for name in sorted(accepted))
    wanted = "a formula" if "LPAR" in accepted and "NAME" in accepted else names
    found = repr(str(error.token)) if error.token else "the end"
    return f"expected {wanted}, found {found}"


def _capped(formula: Formula) -> Formula:
    """Return ``formula``; raise ``FormulaError`` when it nests too deep.

    Run on every node as it is made: parts are within the cap by then, so that ``_depth`` recurses at most 17 deep.
    """
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
