"""Proofs in propositional and first-order logic: formulas as text, and steps that are checked one by one."""

from envgym.verifiers.logic.formula_parser import FormulaError, read_formula
from envgym.verifiers.logic.formulas import Formula
from envgym.verifiers.logic.proofs import LineVerdict, ProofLine, ProofVerdict, StepRules, check_proof
from envgym.verifiers.logic.steps import StepVerdict, Validity, check_steps

__all__ = [
    "Formula",
    "FormulaError",
    "LineVerdict",
    "ProofLine",
    "ProofVerdict",
    "StepRules",
    "StepVerdict",
    "Validity",
    "check_proof",
    "check_steps",
    "read_formula",
]
