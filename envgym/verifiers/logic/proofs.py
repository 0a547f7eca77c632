"""Proofs as numbered lines, each of which follows from the few lines that it cites.

Any step that z3 finds valid is allowed; rules have no names. A proof is more than its claim because steps are
small: a step names at most ``max_cited`` lines and says at most ``max_atoms`` atoms, so that premises cannot be
piled up into one line from which everything follows at once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from envgym.verifiers.logic.formula_parser import FormulaError, read_formula
from envgym.verifiers.logic.formulas import Formula, atoms, free_terms
from envgym.verifiers.logic.steps import StepVerdict, Validity, check_steps

__all__ = ["LineVerdict", "ProofLine", "ProofVerdict", "StepRules", "check_proof"]

_MAX_LINE_CHARS = 300
_NUMBERED = re.compile(r"(\d{1,4})[.:)]\s*", re.ASCII)
_CITED = re.compile(r"\d{1,4}(?:(?:\s*,\s*|\s+and\s+|\s+)\d{1,4}){0,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRules:
    """Limits on the size of a proof and its steps."""

    max_cited: int = 2
    """Maximum number of lines that one step cites."""
    max_atoms: int = 4
    """Maximum number of occurrences of atoms in one step's formula."""
    max_lines: int = 40


@dataclass(frozen=True, slots=True)
class ProofLine:
    """A step: its formula, and the numbers of the lines from which it follows."""

    formula: Formula
    cited: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.formula} from {', '.join(map(str, self.cited))}" if self.cited else str(self.formula)


@dataclass(frozen=True, slots=True)
class LineVerdict:
    """Result of checking one line."""

    number: int
    line: ProofLine | None
    """``None`` if the line cannot be read or breaks a rule."""
    validity: Validity | None
    """``None`` if ``line`` is."""
    reason: str
    """Explanation for the proof's author; empty if the line follows."""

    @property
    def follows(self) -> bool:
        """True when the line follows from the lines that it cites."""
        return self.validity is Validity.FOLLOWS


@dataclass(frozen=True, slots=True)
class ProofVerdict:
    """Result of checking a proof."""

    lines: tuple[LineVerdict, ...]
    proved: bool
    """True if every line follows and the last one is the goal."""
    reason: str
    """First thing wrong with the proof; empty where ``proved``."""

    def established(self) -> set[Formula]:
        """Return the formulas of the lines before the first wrong one; guesses after it establish nothing."""
        standing = itertools.takewhile(lambda verdict: verdict.follows, self.lines)
        return {verdict.line.formula for verdict in standing if verdict.line}


def check_proof(text: str, premises: Sequence[Formula], goal: Formula, rules: StepRules) -> ProofVerdict:
    """Check a proof; never raise because of ``text``.

    Args:
        text: lines such as ``5. p & q from 1, 4``; the premises are lines 1 to ``len(premises)``, and the proof's
            lines count on from there. Numbers may be left out; blank lines are skipped.
        premises: formulas that the proof may cite.
        goal: what the last line must say, in this very form.
        rules: how large steps may be.

    Raises:
        VerifierError: the prover failed.
    """
    rows = [row.strip() for row in text.splitlines() if row.strip()]
    if len(rows) > rules.max_lines:
        return ProofVerdict((), False, f"a proof has {rules.max_lines} lines at most, this one has {len(rows)}")
    reader = _Reader(premises, goal, rules)
    read = [reader.read(row) for row in rows]
    steps = [([reader.formulas[n] for n in line.cited], line.formula) for line, _ in read if line]
    decided = iter(check_steps(steps))
    first = len(premises) + 1
    lines = tuple(
        _with_step(number, line, next(decided)) if line else LineVerdict(number, None, None, reason)
        for number, (line, reason) in enumerate(read, first)
    )
    wrong = next((verdict for verdict in lines if not verdict.follows), None)
    if wrong:
        return ProofVerdict(lines, False, f"line {wrong.number}: {wrong.reason}")
    if not lines or lines[-1].line is None or lines[-1].line.formula != goal:
        return ProofVerdict(lines, False, f"the last line is not the goal, {goal}")
    return ProofVerdict(lines, True, "")


def _with_step(number: int, line: ProofLine, step: StepVerdict) -> LineVerdict:
    reasons = {
        Validity.FOLLOWS: "",
        Validity.UNDECIDED: "too much for the prover; take smaller steps",
        Validity.DOES_NOT_FOLLOW: "does not follow" + (f": {step.where}" if step.where else ""),
    }
    return LineVerdict(number, line, step.validity, reasons[step.validity])


class _Reader:
    """Reads lines in order; ``formulas`` holds those that later lines may cite."""

    def __init__(self, premises: Sequence[Formula], goal: Formula, rules: StepRules) -> None:
        self.formulas: dict[int, Formula] = dict(enumerate(premises, 1))
        self._next = len(premises) + 1
        self._rules = rules
        known = [*premises, goal]
        self._arities = {atom.name: len(atom.terms) for formula in known for atom in atoms(formula)}
        self._constants = set().union(*(free_terms(formula) for formula in known))

    def read(self, row: str) -> tuple[ProofLine | None, str]:
        """Return the line, or None and the reason. Later lines may cite only a line that could be read."""
        number = self._next
        self._next += 1
        try:
            line = self._line(row, number)
        except FormulaError as error:
            return None, str(error)
        self.formulas[number] = line.formula
        return line, ""

    def _line(self, row: str, number: int) -> ProofLine:
        if len(row) > _MAX_LINE_CHARS:
            raise FormulaError(f"a line has {_MAX_LINE_CHARS} characters at most")
        said = _NUMBERED.match(row)
        if said:
            if int(said[1]) != number:
                raise FormulaError(f"this is line {number}, not {said[1]}")
            row = row[said.end() :]
        text, found, cited = row.partition(" from ")
        line = ProofLine(read_formula(text), self._cited(cited.strip(), number) if found else ())
        self._check(line.formula)
        return line

    def _cited(self, text: str, number: int) -> tuple[int, ...]:
        if not _CITED.fullmatch(text):
            raise FormulaError(f"expected numbers of lines after 'from', found {text[:40]!r}")
        cited = tuple(dict.fromkeys(int(digits) for digits in re.findall(r"\d+", text)))
        if len(cited) > self._rules.max_cited:
            raise FormulaError(f"a step uses {self._rules.max_cited} lines at most, this one {len(cited)}")
        for line in cited:
            if line not in self.formulas:
                problem = "comes later" if line >= number else "is not a line that can be used"
                raise FormulaError(f"{line} {problem}")
        return cited

    def _check(self, formula: Formula) -> None:
        said = list(atoms(formula))
        if len(said) > self._rules.max_atoms:
            raise FormulaError(f"a step says {self._rules.max_atoms} atoms at most, this one {len(said)}")
        for atom in said:
            if atom.name not in self._arities:
                raise FormulaError(f"{atom.name} is not in the problem")
            if len(atom.terms) != self._arities[atom.name]:
                raise FormulaError(f"{atom.name} takes {self._arities[atom.name]} terms, not {len(atom.terms)}")
        strange = free_terms(formula) - self._constants
        if strange:
            raise FormulaError(f"{min(strange)} is neither bound nor in the problem")
