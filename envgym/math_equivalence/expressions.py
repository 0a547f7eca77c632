"""Sums, products and powers of atoms, by recursive descent with a bounded depth."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.atoms import AtomParser
from envgym.math_equivalence.functions import scalar_node, scalar_power
from envgym.math_equivalence.limits import MAX_DEPTH, OverCapError, UnreadableError
from envgym.math_equivalence.tree import Add, FunctionCall, Mul, Num, Percent, Series, Sym, Tree, negate

__all__ = ["ExpressionParser"]

_MAX_MARKS = 3


class ExpressionParser(AtomParser):
    """The scalar rules above atoms; ``grammar.AnswerParser`` adds brackets, lists and relations."""

    def sum(self) -> Tree:
        """Read ``term (+ term)*``, with ``+-`` and ``-+`` kept as calls of ``pm``."""
        terms = [self._signed_term()]
        while sign := self.accept("+", "-", "\\pm", "\\mp"):
            term = self._signed_term()
            terms.append(self._with_sign(sign, term))
        return scalar_node(Add, terms)

    def _signed_term(self) -> Tree:
        signs = []
        while sign := self.accept("+", "-", "\\pm", "\\mp"):
            signs.append(sign)
            if len(signs) > MAX_DEPTH:
                raise OverCapError(f"more signs in a row than the cap of {MAX_DEPTH}")
        term = self._term()
        for sign in reversed(signs):
            term = self._with_sign(sign, term)
        return term

    @staticmethod
    def _with_sign(sign: str, term: Tree) -> Tree:
        if isinstance(term, Series):
            raise UnreadableError("a sign before a bracketed series")
        match sign:
            case "-":
                return negate(term)
            case "\\pm":
                return FunctionCall("pm", (term,))
            case "\\mp":
                return FunctionCall("pm", (negate(term),))
            case _:
                return term

    def _term(self) -> Tree:
        factors = [self.power()]
        while True:
            if self.accept("*"):
                factors.append(self._signed_factor())
            elif self.accept("/"):
                factors.append(scalar_power(self._signed_factor(), Num(Fraction(-1))))
            elif self.accept("\\bmod"):
                factors = [FunctionCall("mod", (scalar_node(Mul, factors), self._signed_factor()))]
            elif self.starts_factor():
                is_number = self.token.kind in ("number", "repeating")
                if is_number and (self.previous.text not in ("}", ")") or isinstance(factors[-1], Num)):
                    raise UnreadableError("a number directly after another factor")
                in_braces = self.token.text == "{" and isinstance(factors[-1], Num)
                factors.append(self.power(after_factor=True))
                if in_braces and isinstance(factors[-1], Num):  # LaTeX prints 4{2} as 42
                    raise UnreadableError("a number directly after another factor")
            else:
                return scalar_node(Mul, factors)

    def _signed_factor(self) -> Tree:
        if self.accept("-"):
            return negate(self.nested(self._signed_factor))
        self.accept("+")
        return self.power(after_factor=True)

    def power(self, after_factor: bool = False) -> Tree:
        """Read ``atom``, its signs such as ``!`` and ``%``, and an exponent."""
        tree = self._postfix(self.atom(after_factor))
        if self.accept("^"):
            exponent = self.nested(self.exponent)
            tree = self._postfix(scalar_power(tree, exponent))
        return tree

    def exponent(self) -> Tree:
        """Read an exponent: a signed atom, right-associative."""
        if self.accept("-"):
            return negate(self.nested(self.exponent))
        self.accept("+")
        tree = self.atom(False)
        return scalar_power(tree, self.nested(self.exponent)) if self.accept("^") else tree

    def _postfix(self, tree: Tree) -> Tree:
        marks = 0
        while mark := self.accept("!", "%", "\\degree", "'"):
            marks += 1
            if marks > _MAX_MARKS:
                raise OverCapError(f"more than {_MAX_MARKS} signs after a factor")
            if mark == "!":
                twice = self.accept("!") is not None
                tree = FunctionCall("double_factorial" if twice else "factorial", (tree,))
            elif mark == "%":
                tree = Percent(tree)
            elif mark == "'" and isinstance(tree, Sym):
                tree = Sym(tree.name + "'")
            elif mark == "\\degree":
                tree = Mul((tree, Sym("degree", unit=True)))
                letter = self.token
                if letter.text in ("C", "F"):
                    self.advance()
                    tree = Mul((tree, Sym("degree" + letter.text, unit=True)))
            else:
                raise UnreadableError(f"misplaced {mark!r}")
        return tree
