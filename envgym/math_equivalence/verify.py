"""Staged comparison of a prediction with a gold answer.

The stages, cheapest first: plain rationals, equal strings, structure, exact algebra, and finally computer
algebra in a worker process that can be killed. The caller's process never parses with a library that
evaluates code, and uses no signal, so any thread may call.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from fractions import Fraction

from envgym.errors import DataError
from envgym.math_equivalence.algebra import check_value
from envgym.math_equivalence.answer_rules import AnswerRules
from envgym.math_equivalence.compare import Comparison
from envgym.math_equivalence.final_answer import extract_answer
from envgym.math_equivalence.forms import uncounted_commands, unevaluated_commands, value_of_work
from envgym.math_equivalence.grammar import read_tree
from envgym.math_equivalence.limits import OverCapError, UnreadableError, check_caps
from envgym.math_equivalence.normalise import normalise
from envgym.math_equivalence.plain import plain_ratio
from envgym.math_equivalence.shapes import expand_plus_minus
from envgym.math_equivalence.tree import Series, Tree
from envgym.math_equivalence.tree_json import to_wire
from envgym.math_equivalence.verdict import Decision, Verdict, VerifierStage
from envgym.workers import WorkerFailedError, WorkerTimeoutError, shared_pool

__all__ = ["check_gold", "verify_math"]

_Result = tuple[Decision, VerifierStage, str]
_MAX_REQUESTS = 32
_CHOICE = re.compile(r"[(\[{]?\s*([A-J])\s*[)\]}.:]*")
"""A letter of multiple choice; a gold in capitals may be answered in small letters."""
_NAME = re.compile(r"\\name\{([^{}]*)\}")
_CAS = "envgym.math_equivalence.cas"
_NUMERIC = "envgym.math_equivalence.numeric"


def verify_math(
    prediction: str,
    gold: str,
    *,
    unit: str | None = None,
    percent: bool = False,
    rounded: bool = False,
    timeout: float = 0.7,
) -> Verdict:
    r"""Compare the final answer in ``prediction`` with ``gold``; never raise, whatever the texts are.

    Args:
        prediction: the assistant's last message; ``extract_answer`` finds the answer in it.
        gold: the reference answer, bare or in ``\boxed{}``.
        unit: unit that the task asks for, which either side may omit; ``"*"`` ignores a unit that only the
            prediction states beside a bare gold; ``None`` requires the same unit, or none, on both sides.
        percent: treat a number without a percent sign as a percentage, so that ``50`` means ``50\%``;
            otherwise ``50\%`` is 1/2.
        rounded: accept every value that rounds to a decimal gold (within half a unit of its last digit).
        timeout: limit on computer algebra in processor seconds; starting a worker does not count.
    """
    start = time.perf_counter()
    decision, stage, reason = _decide(prediction, gold, AnswerRules(unit, percent, rounded), timeout)
    return Verdict(decision, stage, reason, time.perf_counter() - start)


def check_gold(gold: str, *, unit: str | None = None, timeout: float = 5.0) -> None:
    """Raise ``DataError`` where a faulty data set should fail on loading.

    That is a ``gold`` (or its ``unit``) that cannot be read, does not equal itself, or has no value that can be
    computed.
    """
    try:
        answer = _read_gold(gold)
        stage = _NumericStage(timeout)
        tree = answer.tree
        if tree is None:
            if shared_pool().ask(_CAS, {"gold": answer.text}, timeout).found["readable"]:
                return
            tree = expand_plus_minus(read_tree(answer.text))
        check_value(tree, stage)
        if not Comparison(AnswerRules(unit), stage).same(tree, tree):
            raise UnreadableError("it does not equal itself")
    except (UnreadableError, WorkerTimeoutError, WorkerFailedError) as error:
        raise DataError(
            f"the gold answer {gold[:100]!r} cannot be read: {error}; correct or drop the row"
        ) from error


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    tree: Tree | None
    """``None`` if only computer algebra can read it."""


def _read_gold(gold: str) -> _Answer:
    answer = extract_answer(gold) if "\\boxed" in gold or "\\fbox" in gold else gold
    if answer is None:
        raise UnreadableError("its last box is open, empty, or holds two boxes")
    check_caps(answer)
    text = normalise(answer)
    if unevaluated_commands(text):
        return _Answer(text, None)
    return _Answer(text, expand_plus_minus(read_tree(text)))


def _decide(prediction: str, gold: str, rules: AnswerRules, timeout: float) -> _Result:
    answer = extract_answer(prediction)
    left, right = plain_ratio(answer) if answer is not None else None, plain_ratio(gold)
    if left is not None and right is not None:
        if left[0] * right[1] == right[0] * left[1]:
            return Decision.CORRECT, VerifierStage.RATIONAL, "equal rationals"
        if not rules.rounded:
            return Decision.INCORRECT, VerifierStage.RATIONAL, "different rationals"
    try:
        reference = _read_gold(gold)
    except UnreadableError as error:
        return Decision.GOLD_ERROR, VerifierStage.PARSING, str(error)
    if answer is None:
        return Decision.UNPARSEABLE, VerifierStage.EXTRACTION, "no final answer"
    try:
        check_caps(answer)
        return _compare(normalise(answer), reference, rules, timeout)
    except OverCapError as error:
        return Decision.UNPARSEABLE, VerifierStage.CAPS, str(error)
    except UnreadableError as error:
        return Decision.UNPARSEABLE, VerifierStage.PARSING, str(error)
    except WorkerTimeoutError as error:
        return Decision.TIMEOUT, VerifierStage.COMPUTER_ALGEBRA, str(error)
    except WorkerFailedError as error:
        return Decision.VERIFIER_ERROR, VerifierStage.COMPUTER_ALGEBRA, str(error)


def _compare(text: str, gold: _Answer, rules: AnswerRules, timeout: float) -> _Result:
    if _letters(text) == _letters(gold.text):
        return Decision.CORRECT, VerifierStage.STRING, "the same text"
    choice, chosen = _CHOICE.fullmatch(gold.text), _CHOICE.fullmatch(text.upper())
    if choice is not None and chosen is not None and choice[1] == chosen[1]:
        return Decision.CORRECT, VerifierStage.STRING, "the same choice"
    if gold.tree is not None:
        text = value_of_work(text)
    undone = unevaluated_commands(text) - unevaluated_commands(gold.text)
    if gold.tree is None:
        undone |= uncounted_commands(text) - uncounted_commands(gold.text)
    if undone:
        return Decision.INCORRECT, VerifierStage.FORM, f"an unevaluated {min(undone)} is not an answer"
    if gold.tree is None:
        if _same_structure(text, gold.text, rules):
            return Decision.CORRECT, VerifierStage.ALGEBRA, "equivalent"
        return _by_computer_algebra(text, gold.text, timeout)
    tree = expand_plus_minus(read_tree(text))
    if isinstance(tree, Series) != isinstance(gold.tree, Series):
        tree, gold = _with_commas_apart(text, tree, gold)
    assert gold.tree is not None

    comparison = Comparison(rules, _NumericStage(timeout))
    try:
        same = comparison.same(tree, gold.tree)
    except UnreadableError as error:
        return _blame(gold.tree, error)
    if same:
        return Decision.CORRECT, comparison.stage, "equivalent"
    if comparison.undone is not None:
        return Decision.INCORRECT, VerifierStage.FORM, f"an unevaluated {comparison.undone} is not an answer"
    return Decision.INCORRECT, comparison.stage, "not equivalent"


def _letters(text: str) -> list[str]:
    """Return the words of normalised ``text``, with names in LaTeX's text mode as plain letters."""
    return _NAME.sub(r"\1", text).split()


def _same_structure(text: str, gold: str, rules: AnswerRules) -> bool:
    """Return whether two answers with sums or products agree part by part, without evaluating any."""
    try:
        left, right = expand_plus_minus(read_tree(text)), expand_plus_minus(read_tree(gold))
        return Comparison(rules, lambda prediction, gold, tolerance: False).same(left, right)
    except UnreadableError:
        return False


def _with_commas_apart(text: str, tree: Tree, gold: _Answer) -> tuple[Tree, _Answer]:
    """Read ``1,234`` as a list on one side where the other side is a list."""
    if isinstance(tree, Series):
        return tree, _Answer(gold.text, expand_plus_minus(read_tree(gold.text, grouped=False)))
    return expand_plus_minus(read_tree(text, grouped=False)), gold


def _blame(gold: Tree, error: UnreadableError) -> _Result:
    try:
        check_value(gold, lambda left, right, tolerance: True)
    except UnreadableError as gold_error:
        return Decision.GOLD_ERROR, VerifierStage.ALGEBRA, str(gold_error)
    raise error


def _by_computer_algebra(text: str, gold: str, timeout: float) -> _Result:
    found = shared_pool().ask(_CAS, {"prediction": text, "gold": gold}, timeout).found
    if not found["readable"]:
        return Decision.GOLD_ERROR, VerifierStage.COMPUTER_ALGEBRA, "computer algebra cannot read the gold"
    equal = found["equal"]
    if equal is None:
        return Decision.UNPARSEABLE, VerifierStage.COMPUTER_ALGEBRA, "computer algebra cannot read the prediction"
    return Decision.CORRECT if equal else Decision.INCORRECT, VerifierStage.COMPUTER_ALGEBRA, "Math-Verify"


class _NumericStage:
    """Sends the scalar pairs of one answer to the worker, within one time limit for all of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._requests = _MAX_REQUESTS

    def __call__(self, prediction: Tree, gold: Tree, tolerance: Fraction | None) -> bool:
        self._requests -= 1
        if self._requests < 0:
            raise OverCapError(f"more than {_MAX_REQUESTS} parts need computer algebra")
        request = {
            "prediction": to_wire(prediction),
            "gold": to_wire(gold),
            "tolerance": str(tolerance) if tolerance is not None else None,
        }
        reply = shared_pool().ask(_NUMERIC, request, max(self._seconds, 0.01))
        self._seconds -= reply.seconds
        return bool(reply.found["equal"])
