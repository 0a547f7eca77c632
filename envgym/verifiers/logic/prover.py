"""Decide by z3 whether steps follow. Runs in a worker process only: z3 cannot be interrupted safely.

The solver is limited by z3's own count of work (``rlimit``) rather than the clock, so that a busy machine decides
every step alike. The domain of things has at least one member, as usual in first-order logic.
"""

from __future__ import annotations

from typing import Any

import z3

from envgym.verifiers.logic.formula_parser import WRITTEN_CHARS, read_formula
from envgym.verifiers.logic.formulas import Atom, Binary, Formula, Not, Quantified, atoms

__all__ = ["answer", "warm_up"]

_STEP_EFFORT = 200_000
"""Limit on one step in units of z3's own count of work; ordinary steps take a few hundred."""
_TOTAL_EFFORT = 1_000_000
"""Limit on all steps of a request, in the same units: about a second."""
_UNDECIDED = ["undecided", ""]
_CONNECTIVES = {"&": z3.And, "|": z3.Or, "->": z3.Implies, "<->": lambda left, right: left == right}


def warm_up() -> None:
    """Prove one step, so that every forked child shares what z3 sets up for it."""
    answer({"steps": [[["forall x. p(x) -> q"], "q | r"]]})


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Decide each of ``steps``, pairs of premises and a conclusion.

    Returns:
        ``{"verdicts": [...]}``: for each step ``["follows", ""]``, ``["undecided", ""]``, or
        ``["does_not_follow", where]``; ``where`` names the propositions' values in a counterexample.
    """
    left = _TOTAL_EFFORT
    verdicts = []
    for premises, conclusion in request["steps"]:
        verdict, spent = _decide(premises, conclusion, min(left, _STEP_EFFORT)) if left > 0 else (_UNDECIDED, 0)
        left -= spent
        verdicts.append(verdict)
    return {"verdicts": verdicts}


def _decide(premises: list[str], conclusion: str, effort: int) -> tuple[list[str], int]:
    """Return the verdict and the work that it took."""
    solver = z3.SimpleSolver()  # half the time of the combined one, which picks among tactics first
    solver.set("rlimit", effort)
    formulas = [read_formula(text, max_chars=WRITTEN_CHARS) for text in (*premises, conclusion)]
    translation = _Translation()
    solver.add(*(translation.of(formula, {}) for formula in formulas[:-1]))
    solver.add(z3.Not(translation.of(formulas[-1], {})))
    before = _work(solver)
    found = solver.check()
    spent = _work(solver) - before
    if found == z3.unknown:
        return _UNDECIDED, spent
    if found == z3.unsat:
        return ["follows", ""], spent
    return ["does_not_follow", _where(solver.model(), formulas)], spent


def _work(solver: Any) -> int:
    statistics = solver.statistics()
    return int(statistics.get_key_value("rlimit count")) if "rlimit count" in statistics.keys() else 0  # noqa: SIM118


class _Translation:
    """Translates one step to z3: a name stands for the same term in all its formulas."""

    def __init__(self) -> None:
        self._thing = z3.DeclareSort("Thing")

    def of(self, formula: Formula, bound: dict[str, Any]) -> Any:
        """Return the z3 formula; ``bound`` holds the variables of the quantifiers around it."""
        match formula:
            case Atom(name, ()):
                return z3.Bool(name)
            case Atom(name, terms):
                predicate = z3.Function(name, *[self._thing] * len(terms), z3.BoolSort())
                return predicate(*(bound.get(t, z3.Const(t, self._thing)) for t in terms))
            case Not(body):
                return z3.Not(self.of(body, bound))
            case Binary(operator, left, right):
                return _CONNECTIVES[operator](self.of(left, bound), self.of(right, bound))
            case Quantified(quantifier, variable, body):
                fresh = z3.FreshConst(self._thing, variable)
                inner = self.of(body, {**bound, variable: fresh})
                return z3.ForAll([fresh], inner) if quantifier == "forall" else z3.Exists([fresh], inner)


def _where(model: z3.ModelRef, formulas: list[Formula]) -> str:
    """Return the propositions' values in a counterexample; empty where there are predicates."""
    used = {atom for formula in formulas for atom in atoms(formula)}
    if any(atom.terms for atom in used):
        return ""
    values = {name: model.eval(z3.Bool(name), model_completion=True) for name in sorted(a.name for a in used)}
    return ", ".join(f"{name} is {'true' if z3.is_true(value) else 'false'}" for name, value in values.items())
