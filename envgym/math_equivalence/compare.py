"""Structural comparison: brackets, order and count must agree before scalars are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

from envgym.math_equivalence import algebra
from envgym.math_equivalence.answer_rules import AnswerRules, split_unit
from envgym.math_equivalence.arrangements import as_vector_of, ratio_pairs
from envgym.math_equivalence.forms import is_work, undone
from envgym.math_equivalence.intervals import as_real_set, same_set
from envgym.math_equivalence.parameters import aligned, same_progression
from envgym.math_equivalence.ring import Budget
from envgym.math_equivalence.shapes import assigned, infinity_sign, is_name, oriented, system
from envgym.math_equivalence.tree import Add, Num, Relation, Series, Sym, Tree, Words, divide, negate, walk
from envgym.math_equivalence.verdict import VerifierStage

__all__ = ["Comparison", "Undecided"]

Undecided = Callable[[Tree, Tree, Fraction | None], bool]
"""Decides what exact arithmetic cannot: (prediction, gold, tolerance) -> equal."""

_ORDER = list(VerifierStage)
_UNORDERED = frozenset({",", "{}", "cup", "or"})
_CONDITIONS = frozenset({"<", "<=", ">", ">=", "!=", "in"})
_NO_SCALARS = Relation | Series | Words


class Comparison:
    """One comparison of a prediction with a gold under the task's rules."""

    def __init__(self, rules: AnswerRules, undecided: Undecided) -> None:
        self._rules = rules
        self._undecided = undecided
        self._budget = Budget()
        self._parameter: Sym | None = None
        self.stage = VerifierStage.STRUCTURE
        """The last stage needed so far."""
        self.undone: str | None = None
        """Operation that the prediction leaves unevaluated, such as a sum, where the gold has a value."""

    def same(self, prediction: Tree, gold: Tree) -> bool:
        """Return whether the two are equivalent answers."""
        prediction, gold, self._parameter = aligned(prediction, gold)
        prediction, gold = self._concluded(prediction), self._concluded(gold)
        left, right = assigned(prediction), assigned(gold)
        if left is not None and right is not None and left[0] == right[0]:
            return self._same_value(left[1], right[1])
        if left is not None and right is None and not _has_relation(gold):
            return self._same_value(left[1], gold)
        if right is not None and left is None and not _has_relation(prediction):
            return self._same_value(prediction, right[1])
        return self._same_value(prediction, gold)

    def _concluded(self, tree: Tree) -> Tree:
        """Return ``x = 5`` for ``x = 2+3 = 5``, and ``5`` for ``2+3 = 5``: what a calculation ends in.

        A chain that holds another answer on the way, as ``6=5`` or ``x=6=5`` does, stays an equation.
        """
        if not isinstance(tree, Relation) or set(tree.signs) != {"="}:
            return tree
        names = tuple(itertools.takewhile(is_name, tree.sides[:-1]))
        *way, last = tree.sides[len(names) :]
        if not all(self._leads_to(step, last, named=bool(names)) for step in way):
            return tree
        return Relation((names[0], last), ("=",)) if names else last

    def _leads_to(self, step: Tree, last: Tree, *, named: bool) -> bool:
        if isinstance(step, _NO_SCALARS) or isinstance(last, _NO_SCALARS):
            return False
        if is_work(step):
            return True
        return (named or not isinstance(step, Num | Sym)) and self._same_exactly(step, last)

    def _same_exactly(self, left: Tree, right: Tree) -> bool:
        return not _variables(left) and algebra.equal(left, right, self._budget) is True

    def _same_value(self, prediction: Tree, gold: Tree) -> bool:
        if isinstance(prediction, Words) or isinstance(gold, Words):
            return prediction == gold
        for decide in (self._same_system, self._same_set, self._same_ratio):
            decided = decide(prediction, gold)
            if decided is not None:
                return decided
        if isinstance(prediction, Relation) and isinstance(gold, Relation):
            return self._same_relation(oriented(prediction), oriented(gold))
        if isinstance(prediction, Series) and isinstance(gold, Series):
            return self._same_series(as_vector_of(prediction, gold), as_vector_of(gold, prediction))
        if isinstance(prediction, Relation | Series) or isinstance(gold, Relation | Series):
            return False
        return self._same_scalar(prediction, gold)

    def _same_system(self, prediction: Tree, gold: Tree) -> bool | None:
        """Compare values with names by name, and bare values with named ones in the order of the names."""
        left, right = system(prediction), system(gold)
        if left is not None and right is not None:
            values = {str(name): value for name, value in zip(*left, strict=True)}
            return values.keys() == {str(name) for name in right[0]} and all(
                self._same_value(values[str(name)], value) for name, value in zip(*right, strict=True)
            )
        if right is not None and isinstance(prediction, Series) and prediction.kind in ("()", ","):
            return not _has_relation(prediction) and self._same_in_order(prediction.items, right[1])
        if left is not None and isinstance(gold, Series) and gold.kind == "()":
            return not _has_relation(gold) and self._same_in_order(left[1], gold.items)
        return None

    def _same_set(self, prediction: Tree, gold: Tree) -> bool | None:
        if not (_is_condition(prediction) or _is_condition(gold)):
            return None
        left, right = as_real_set(prediction, self._same_scalar), as_real_set(gold, self._same_scalar)
        return None if left is None or right is None else same_set(left, right, self._same_scalar)

    def _same_ratio(self, prediction: Tree, gold: Tree) -> bool | None:
        if not any(isinstance(tree, Series) and tree.kind == ":" for tree in (prediction, gold)):
            return None
        pairs = ratio_pairs(prediction, gold)
        return pairs is not None and all(self._same_scalar(left, right) for left, right in pairs)

    def _same_in_order(self, prediction: tuple[Tree, ...], gold: tuple[Tree, ...]) -> bool:
        return len(prediction) == len(gold) and all(map(self._same_value, prediction, gold))

    def _same_series(self, prediction: Series, gold: Series) -> bool:
        kinds = {prediction.kind, gold.kind}
        if len(kinds) > 1 and kinds != {",", "{}"}:
            return False
        if kinds == {"mod"}:
            return self._same_residue(prediction, gold)
        if prediction.kind == gold.kind and prediction.kind not in _UNORDERED:
            return self._same_in_order(prediction.items, gold.items)
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

    def _same_residue(self, prediction: Series, gold: Series) -> bool:
        (left, modulus), (right, other) = prediction.items, gold.items
        if not self._same_scalar(modulus, other):
            return False
        turns = algebra.quotient(Add((left, negate(right))), other, self._budget)
        return turns.denominator == 1 if turns is not None else self._same_value(left, right)

    def _same_scalar(self, prediction: Tree, gold: Tree) -> bool:
        if self._parameter is not None and same_progression(prediction, gold, self._parameter, self._budget):
            return True
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


def _is_condition(tree: Tree) -> bool:
    r"""Return whether ``tree`` states a set by relations or operations: ``x > 5``, ``A \cup B``."""
    if isinstance(tree, Series):
        return tree.kind in ("or", "cup", "minus") or (
            tree.kind == "," and all(isinstance(item, Relation) and _is_condition(item) for item in tree.items)
        )
    return isinstance(tree, Relation) and _CONDITIONS.issuperset(tree.signs)


def _variables(tree: Tree) -> bool:
    return any(isinstance(part, Sym) and not part.unit for part in walk(tree))


def _difference(relation: Relation) -> Tree:
    left, right = relation.sides
    return Add((left, negate(right)))
