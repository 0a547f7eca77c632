"""Structural comparison: brackets, order and count must agree before scalars are compared."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from envgym.math_equivalence import algebra
from envgym.math_equivalence.answer_rules import AnswerRules, split_unit
from envgym.math_equivalence.forms import undone
from envgym.math_equivalence.ring import Budget
from envgym.math_equivalence.shapes import as_interval, assigned, infinity_sign, oriented
from envgym.math_equivalence.tree import Add, Relation, Series, Tree, Words, divide, negate
from envgym.math_equivalence.verdict import VerifierStage

__all__ = ["Comparison", "Undecided"]

Undecided = Callable[[Tree, Tree, Fraction | None], bool]
"""Decides what exact arithmetic cannot: (prediction, gold, tolerance) -> equal."""

_ORDER = list(VerifierStage)
_UNORDERED = frozenset({",", "{}", "cup"})


class Comparison:
    """One comparison of a prediction with a gold under the task's rules."""

    def __init__(self, rules: AnswerRules, undecided: Undecided) -> None:
        self._rules = rules
        self._undecided = undecided
        self._budget = Budget()
        self.stage = VerifierStage.STRUCTURE
        """The last stage needed so far."""
        self.undone: str | None = None
        """Operation that the prediction leaves unevaluated, such as a sum, where the gold has a value."""

    def same(self, prediction: Tree, gold: Tree) -> bool:
        """Return whether the two are equivalent answers."""
        left, right = assigned(prediction), assigned(gold)
        if left is not None and right is not None and left[0] == right[0]:
            return self._same_value(left[1], right[1])
        if left is not None and right is None and not _has_relation(gold):
            return self._same_value(left[1], gold)
        if right is not None and left is None and not _has_relation(prediction):
            return self._same_value(prediction, right[1])
        return self._same_value(prediction, gold)

    def _same_value(self, prediction: Tree, gold: Tree) -> bool:
        if isinstance(prediction, Words) or isinstance(gold, Words):
            return prediction == gold
        if _has_relation(prediction) or _has_relation(gold):
            left, right = as_interval(prediction), as_interval(gold)
            if left is not None and right is not None:
                return left[0] == right[0] and self._same_value(left[1], right[1])
            if left is not None and isinstance(gold, Series):
                return self._same_value(left[1], gold)
            if right is not None and isinstance(prediction, Series):
                return self._same_value(prediction, right[1])
        if isinstance(prediction, Relation) and isinstance(gold, Relation):
            return self._same_relation(oriented(prediction), oriented(gold))
        if isinstance(prediction, Series) and isinstance(gold, Series):
            return self._same_series(prediction, gold)
        if isinstance(prediction, Relation | Series) or isinstance(gold, Relation | Series):
            return False
        return self._same_scalar(prediction, gold)

    def _same_series(self, prediction: Series, gold: Series) -> bool:
        kinds = {prediction.kind, gold.kind}
        if len(kinds) > 1 and kinds != {",", "{}"}:
            return False
        if prediction.kind == gold.kind and prediction.kind not in _UNORDERED:
            return len(prediction.items) == len(gold.items) and all(
                self._same_value(left, right) for left, right in zip(prediction.items, gold.items, strict=True)
            )
        if kinds == {"{}"}:
            return self._covers(prediction, gold) and self._covers(gold, prediction, swapped=True)
        return self._matches(prediction, gold)

    def _covers(self, these: Series, those: Series, *, swapped: bool = False) -> bool:
        """Return whether every item of ``these`` is among ``those``."""
        return all(
            any(self._same_value(b, a) if swapped else self._same_value(a, b) for b in those.items)
            for a in these.items
        )

    def _matches(self, prediction: Series, gold: Series) -> bool:
        """Return whether the items pair up one to one; greedy, as equality is an equivalence."""
        if len(prediction.items) != len(gold.items):
            return False
        left = list(prediction.items)
        for right in gold.items:
            found = next((i for i, item in enumerate(left) if self._same_value(item, right)), None)
            if found is None:
                return False
            del left[found]
        return True

    def _same_relation(self, prediction: Relation, gold: Relation) -> bool:
        if prediction.signs != gold.signs:
            return False
        pairs = list(zip(prediction.sides, gold.sides, strict=True))
        if any(isinstance(side, Series | Relation | Words) for pair in pairs for side in pair):
            return all(self._same_value(left, right) for left, right in pairs)
        if len(pairs) == 2:
            factor = algebra.proportion(_difference(prediction), _difference(gold), self._budget)
            if factor is not None:
                self._reach(VerifierStage.ALGEBRA)
                return factor != 0 and (factor > 0 or gold.signs[0] in ("=", "!="))
        return all(self._same_scalar(left, right) for left, right in pairs)

    def _same_scalar(self, prediction: Tree, gold: Tree) -> bool:
        operation = undone(prediction, gold)
        if operation is not None:
            self.undone = operation
            return False
        left_infinity, right_infinity = infinity_sign(prediction), infinity_sign(gold)
        if left_infinity or right_infinity:
            return left_infinity == right_infinity
        left, right = self._rules.read(prediction, gold), self._rules.read(gold, prediction)
        self._reach(VerifierStage.ALGEBRA)
        value, unit = split_unit(right)
        tolerance = self._rules.tolerance(value)
        if tolerance is None:
            decided = algebra.equal(left, right, self._budget)
        else:
            left, right = divide(left, unit), value
            decided = algebra.within(left, right, tolerance, self._budget)
        if decided is not None:
            return decided
        self._reach(VerifierStage.COMPUTER_ALGEBRA)
        return self._undecided(left, right, tolerance)

    def _reach(self, stage: VerifierStage) -> None:
        self.stage = max(self.stage, stage, key=_ORDER.index)


def _has_relation(tree: Tree) -> bool:
    return isinstance(tree, Relation) or (isinstance(tree, Series) and any(map(_has_relation, tree.items)))


def _difference(relation: Relation) -> Tree:
    left, right = relation.sides
    return Add((left, negate(right)))
