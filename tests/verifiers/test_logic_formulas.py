"""Formulas: what is read, how it is written, and what is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.verifiers.logic import Formula, FormulaError, read_formula
from envgym.verifiers.logic.formula_parser import WRITTEN_CHARS
from envgym.verifiers.logic.formulas import Atom, Binary, Not, Quantified, atoms, free_terms

_NAMES = st.sampled_from(("p", "q", "likes", "x1"))
_ATOMS = st.builds(Atom, _NAMES, st.lists(_NAMES, max_size=2).map(tuple))
_FORMULAS: st.SearchStrategy[Formula] = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(Binary, st.sampled_from(("<->", "->", "|", "&")), inner, inner),
        st.builds(Quantified, st.sampled_from(("forall", "exists")), _NAMES, inner),
    ),
    max_leaves=8,
)


@given(_FORMULAS)
def test_what_is_written_is_read_as_the_same_formula(formula: Formula) -> None:
    try:
        again = read_formula(str(formula), max_chars=WRITTEN_CHARS)
    except FormulaError as error:
        assert "nested deeper" in str(error)  # noqa: PT017 - the one reason to refuse
        return
    assert again == formula


@given(st.text(max_size=300))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        formula = read_formula(text)
    except FormulaError as error:
        assert str(error)  # noqa: PT017 - a reason is given
    else:
        assert read_formula(str(formula), max_chars=WRITTEN_CHARS) == formula


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a->b->c", "a -> (b -> c)"),
        ("a & b & c | d", "(a & b) & c | d"),
        ("~a & b", "~a & b"),
        ("~(a & b)", "~(a & b)"),
        ("forall x y. p(x) -> q(y)", "forall x. forall y. p(x) -> q(y)"),
        ("(forall x. p(x)) -> q", "(forall x. p(x)) -> q"),
        ("∀x.¬p(x)∨q(x)↔r", "forall x. ~p(x) | q(x) <-> r"),
        ("a <=> !b => c", "a <-> ~b -> c"),
        ("~forall x. p(x) & q", "~(forall x. p(x) & q)"),
        ("p & forall x. q(x) -> r", "p & (forall x. q(x) -> r)"),
        ("forallx & existsy", "forallx & existsy"),
        ("(" * 90 + "p" + ")" * 90, "p"),
    ],
)
def test_precedence(text: str, written: str) -> None:
    """Tighter connectives need no brackets; arrows group to the right, the others to the left."""
    assert str(read_formula(text)) == written
    assert read_formula(written) == read_formula(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a formula, found the end"),
        ("p &", "found the end"),
        ("p q", "'q' is left over"),
        ("(p", "expected '\\)'"),
        ("p()", "expected a name, found '\\)'"),
        ("P(x)", "'P' is not part of the notation"),
        ("p; q", "';' is not part"),
        ("forall . p", "expected a name, found '.'"),
        ("exists forall. p", "expected a name, found 'forall'"),
        ("p = q", "'=' is not part"),
        ("~" * 17 + "p", "nested deeper than 16"),
        ("forall x" + " x" * 16 + ". p", "nested deeper than 16"),
        ("(" * 40 + "p" + ")" * 39, "expected '\\)', found the end"),
        (" & ".join("p" * 18), "nested deeper than 16"),
        (" -> ".join("p" * 18), "nested deeper than 16"),
        ("p" * 201, "200 characters at most, this one has 201"),
    ],
)
def test_what_is_no_formula_is_refused_with_a_reason(text: str, complaint: str) -> None:
    with pytest.raises(FormulaError, match=complaint):
        read_formula(text)


def test_a_megabyte_of_brackets_costs_nothing() -> None:
    begun = time.perf_counter()
    with pytest.raises(FormulaError):
        read_formula("(" * 1_000_000)
    assert time.perf_counter() - begun < 0.5


def test_atoms_and_free_terms() -> None:
    formula = read_formula("forall x. (exists y. r(x, y) & r(y, ada)) -> p(x) | q")
    assert [str(atom) for atom in atoms(formula)] == ["r(x, y)", "r(y, ada)", "p(x)", "q"]
    assert free_terms(formula) == {"ada"}
