"""Problems from files: JSON lines with premises, a goal, and perhaps a proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from envgym.errors import DataError
from envgym.records import Split, Task
from envgym.tasks.files import load_split, row_id, text_of
from envgym.verifiers.logic import Formula, FormulaError, StepRules, check_proof, check_steps, read_formula
from envgym.verifiers.logic.formulas import Binary, Not, atoms
from envgym_environments.proof_checker.problem import ProofProblem

__all__ = ["file_problems"]

_MAX_PREMISES = 60


def file_problems(
    split: Split,
    train_file: str,
    held_out_file: str,
    rules: StepRules,
    make: Callable[[str, Split, ProofProblem], Task],
) -> Sequence[Task]:
    """Return the problems of a split, from rows with ``premises`` (a list), ``goal`` and perhaps ``proof``.

    Raises:
        DataError: see ``load_split``; also for a formula that cannot be read, premises that contradict each other,
            a wrong proof, or a row without a proof whose goal does not follow. The message names file and row.
    """

    def read(where: str, row: dict[str, Any], split: Split) -> Task:
        return make(row_id(where, split), split, _problem(where, row, rules))

    return load_split(split, train_file, held_out_file, ("premises", "goal"), read)


def _problem(where: str, row: dict[str, Any], rules: StepRules) -> ProofProblem:
    texts = row["premises"]
    if not isinstance(texts, list) or not 0 < len(texts) <= _MAX_PREMISES:
        raise DataError(f"{where}: column 'premises' must be a list of 1 to {_MAX_PREMISES} formulas")
    premises = [_formula(where, {"premises": text}, "premises") for text in texts]
    goal = _formula(where, row, "goal")
    proof = row.get("proof") or []
    lines = proof.splitlines() if isinstance(proof, str) else proof
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise DataError(f"{where}: column 'proof' must be text or a list of lines")
    arities = {(atom.name, len(atom.terms)) for formula in (*premises, goal) for atom in atoms(formula)}
    if twice := [name for name, count in Counter(name for name, _ in arities).items() if count > 1]:
        raise DataError(f"{where}: {min(twice)} is used with different numbers of terms")
    contradiction = Binary("&", goal, Not(goal))
    consistent, provable = check_steps([(premises, contradiction), (premises, goal)])
    if consistent.validity == "follows":
        raise DataError(f"{where}: the premises contradict each other, so that everything follows from them")
    verdict = check_proof("\n".join(lines), premises, goal, rules)
    if lines and not verdict.proved:
        raise DataError(f"{where}: the proof is wrong: {verdict.reason}")
    if provable.validity != "follows" and not lines:
        raise DataError(f"{where}: the goal {provable.validity.replace('_', ' ')} ({provable.where or goal})")
    return ProofProblem(
        premises=tuple(map(str, premises)),
        goal=str(goal),
        proof=tuple(lines),
        steps=tuple(str(line.line.formula) for line in verdict.lines if line.line),
    )


def _formula(where: str, row: dict[str, Any], column: str) -> Formula:
    text = text_of(where, row, column)
    try:
        return read_formula(text)
    except FormulaError as error:
        raise DataError(f"{where}: column {column!r}: {text[:80]!r} is not a formula: {error}") from None
