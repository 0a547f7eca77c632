"""Proofs: every line must follow, steps stay small, and no text makes the checker raise or hang."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.verifiers.logic import StepRules, check_proof, check_steps, read_formula
from envgym.verifiers.logic.formulas import Atom, Binary, Formula, Not, atoms

_PREMISES = [read_formula(text) for text in ("p", "p -> q", "q -> r | s", "r -> t", "s -> t")]
_GOAL = read_formula("t")
_PROOF = "6. q from 1, 2\n7. r | s from 3, 6\n8. t | s from 4, 7\n9. t from 5, 8"
_ENDLESS = (
    [
        read_formula("forall x. exists y. r(x, y)"),
        read_formula("forall x y z. (r(x, y) & r(y, z) -> r(x, z)) & ~r(x, x)"),
    ],
    read_formula("p"),
)
"""Holds in infinite worlds only, so a search for a finite one has no end."""


def _check(text: str, rules: StepRules | None = None) -> str:
    """Why it is no proof; nothing where it is one."""
    verdict = check_proof(text, _PREMISES, _GOAL, rules or StepRules())
    assert verdict.proved is (verdict.reason == "")
    return verdict.reason


@pytest.mark.parametrize(
    "text",
    [
        _PROOF,
        "q from 1 2\n\nr | s from 3 and 6\n t | s from 4,7\nt from 5 8",
        "6) q from 2, 1\n7: r∨s from 6, 3\n8. t | s from 7, 4\n9. t from 8, 5",
        "6. x | ~x\n".replace("x", "p")
        + "7. q from 1, 2\n8. r | s from 3, 7\n9. t | s from 4, 8\n10. t from 5, 9",
    ],
)
def test_proofs(text: str) -> None:
    """Numbers may be left out, lines cited in any order, and what always holds needs no line."""
    assert _check(text) == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the last line is not the goal, t"),
        ("6. t from 1, 2", "line 6: does not follow: p is true, q is true, t is false"),
        ("6. t", "line 6: does not follow: t is false"),
        ("6. t from 6", "line 6: 6 comes later"),
        ("6. t from 7\n7. t from 6", "line 6: 7 comes later"),
        ("6. t from 0", "line 6: 0 is not a line that can be used"),
        ("1. t from 1, 2", "line 6: this is line 6, not 1"),
        ("6. q from 1, 2, 3", "line 6: a step uses 2 lines at most, this one 3"),
        ("6. t from 1, 2, 3, 4, 5", "line 6: a step uses 2 lines at most, this one 5"),
        ("6. p & (p -> q) & (q -> r | s) from 1, 2", "line 6: a step says 4 atoms at most, this one 6"),
        ("6. t from all", "expected numbers of lines after 'from', found 'all'"),
        ("6. z from 1", "line 6: z is not in the problem"),
        ("6. p(ada) from 1", "line 6: p takes 0 terms, not 1"),
        ("6. q from 1, 2\n7. hence t", "line 7: 't' is left over"),
        (_PROOF + "\n10. q from 1, 2", "the last line is not the goal, t"),
        (_PROOF.replace("9. t", "9. (s | t)"), "the last line is not the goal, t"),
        ("6. t from 8\n" + _PROOF, "line 6: 8 comes later"),
        ("\n".join(["p from 1"] * 41), "40 lines at most, this one has 41"),
        ("6. " + "q" * 400 + " from 1", "line 6: a line has 300 characters at most"),
        ("1. p\n2. p -> q\n3. q -> r | s\n4. r -> t\n5. s -> t\nGoal: t", "line 6: this is line 6, not 1"),
    ],
)
def test_what_is_no_proof(text: str, complaint: str) -> None:
    """Circles, claims, redefined premises, piled-up premises, and the problem handed back."""
    assert complaint in _check(text)


def test_a_broken_line_ends_what_is_established() -> None:
    """Also where later lines follow by themselves: a proof is no place to try things out."""
    verdict = check_proof("6. q from 1, 2\n7. r from 6\n8. r | s from 3, 6", _PREMISES, _GOAL, StepRules())
    assert [line.follows for line in verdict.lines] == [True, False, True]
    assert {str(formula) for formula in verdict.established()} == {"q"}


def test_a_line_that_cannot_be_read_cannot_be_cited() -> None:
    verdict = check_proof("6. q &\n7. q from 6", _PREMISES, _GOAL, StepRules())
    assert [line.reason for line in verdict.lines][1] == "6 is not a line that can be used"


def _holds(formula: Formula, world: dict[str, bool]) -> bool:
    match formula:
        case Atom(name):
            return world[name]
        case Not(body):
            return not _holds(body, world)
        case Binary("&", left, right):
            return _holds(left, world) and _holds(right, world)
        case Binary("|", left, right):
            return _holds(left, world) or _holds(right, world)
        case Binary("->", left, right):
            return not _holds(left, world) or _holds(right, world)
        case Binary(_, left, right):
            return _holds(left, world) is _holds(right, world)
    raise AssertionError(formula)


_PROPOSITIONS: st.SearchStrategy[Formula] = st.recursive(
    st.builds(Atom, st.sampled_from("pqrs")),
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(Binary, st.sampled_from(("<->", "->", "|", "&")), inner, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(_PROPOSITIONS, max_size=2), _PROPOSITIONS), min_size=1, max_size=6))
def test_the_prover_agrees_with_truth_tables(steps: list[tuple[list[Formula], Formula]]) -> None:
    """Also about the case that it names against a step."""
    worlds = [dict(zip("pqrs", values, strict=True)) for values in itertools.product((True, False), repeat=4)]
    for (premises, conclusion), verdict in zip(steps, check_steps(steps), strict=True):
        against = [w for w in worlds if all(_holds(p, w) for p in premises) and not _holds(conclusion, w)]
        assert verdict.validity == ("does_not_follow" if against else "follows")
        if against:
            named = dict(part.split(" is ") for part in verdict.where.split(", "))
            used = {atom.name for formula in (*premises, conclusion) for atom in atoms(formula)}
            assert set(named) == used
            assert {name: value == "true" for name, value in named.items()} in [
                {name: world[name] for name in used} for world in against
            ]


@pytest.mark.parametrize(
    ("premises", "conclusion", "validity"),
    [
        (["forall x. man(x) -> mortal(x)", "man(ada)"], "mortal(ada)", "follows"),
        (["forall x. man(x) -> mortal(x)", "mortal(ada)"], "man(ada)", "does_not_follow"),
        (["forall x. p(x)"], "exists x. p(x)", "follows"),
        (["exists x. p(x)"], "p(ada)", "does_not_follow"),
        (["exists x. p(x)"], "forall x. p(x)", "does_not_follow"),
        (["exists y. forall x. r(x, y)"], "forall x. exists y. r(x, y)", "follows"),
        (["forall x. exists y. r(x, y)"], "exists y. forall x. r(x, y)", "does_not_follow"),
        (["forall x. (forall x. p(x)) -> q(x)", "p(ada)"], "q(ada)", "does_not_follow"),
    ],
)
def test_first_order_steps(premises: list[str], conclusion: str, validity: str) -> None:
    """Classical textbook steps: instances, witnesses, the order of quantifiers, variables bound twice."""
    (verdict,) = check_steps([([read_formula(p) for p in premises], read_formula(conclusion))])
    assert verdict.validity == validity


def test_a_step_without_end_is_undecided_and_decided_alike_each_time() -> None:
    """The limit is on work, not on time; forty such steps share one limit, so a proof of them ends soon, too."""
    begun = time.perf_counter()
    verdicts = [[v.validity for v in check_steps([_ENDLESS] * 40)] for _ in range(2)]
    assert verdicts[0] == verdicts[1] == ["undecided"] * 40
    assert time.perf_counter() - begun < 20


def test_too_much_for_the_prover_is_no_proof() -> None:
    verdict = check_proof("p from 1, 2", _ENDLESS[0], _ENDLESS[1], StepRules())
    assert (verdict.proved, verdict.reason) == (False, "line 3: too much for the prover; take smaller steps")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400))
def test_no_text_makes_the_checker_raise_or_proves_the_goal(text: str) -> None:
    assert _check(text) != ""
