r"""Scalars as ratios of polynomials: radicals, logarithms, powers, counts and rational functions, without floats.

The base of a bare ``\log`` is unknown: it obeys the laws of logarithms and equals no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from envgym.math_equivalence.evaluation import evaluated
from envgym.math_equivalence.limits import MAX_EXPONENT, OverCapError, UnreadableError
from envgym.math_equivalence.primes import factorise
from envgym.math_equivalence.ring import IMAGINARY, ONE, Atom, Budget, Ratio, atom, constant
from envgym.math_equivalence.tree import (
    Add,
    Const,
    FunctionCall,
    Mul,
    Num,
    Percent,
    Pow,
    Sym,
    Tree,
)

__all__ = ["Algebra"]

_UNKNOWN_BASE: Atom = (2, "logarithm of the unknown base")
_LARGEST_EXPANDED_POWER = 12


class Algebra:
    """Converts trees to ratios of polynomials, for one comparison."""

    def __init__(self, whole: Budget) -> None:
        self.budget = Budget(whole)
        self.complete = True
        """True while two ratios that differ are different numbers; opaque atoms make it false."""

    def value(self, tree: Tree) -> Ratio:
        """Return ``tree`` as a ratio; raise ``UnreadableError`` where it is not a scalar or divides by zero."""
        match tree:
            case Num(value):
                return constant(value, self.budget)
            case Sym(name):
                return self._atom((3, name))
            case Const("inf"):
                raise UnreadableError("arithmetic on infinity")
            case Const("i"):
                return self._atom(IMAGINARY)
            case Const(name):
                return self._atom((2, name))
            case Percent(value):
                return self.value(value).scaled(Fraction(1, 100))
            case Add(terms):
                total = constant(Fraction(0), self.budget)
                for term in terms:
                    total = total + self.value(term)
                return total
            case Mul(factors):
                product = constant(Fraction(1), self.budget)
                for factor in factors:
                    product = product * self.value(factor)
                return product
            case Pow(base, exponent):
                return self._power(self.value(base), self.value(exponent))
            case FunctionCall(name, arguments):
                return self._call(name, [self.value(argument) for argument in arguments])
            case _:
                raise UnreadableError("a bracketed series where a number was expected")

    def _atom(self, name: Atom, exponent: Fraction = Fraction(1)) -> Ratio:
        return atom(name, exponent, self.budget)

    def _opaque(self, name: str, *arguments: Ratio) -> Ratio:
        self.complete = False
        return self._atom((4, f"{name}({', '.join(argument.key() for argument in arguments)})"))

    def _call(self, name: str, arguments: list[Ratio]) -> Ratio:
        first, *rest = arguments
        if name == "pm":
            raise UnreadableError("a plus-minus where one number was expected")
        if name == "root" and len(rest) == 1:
            return self._root(first, rest[0])
        if name == "ln" and not rest:
            return self._logarithm(first)
        if name == "log" and len(rest) < 2:
            base = self._logarithm(rest[0]) if rest else self._atom(_UNKNOWN_BASE)
            return self._logarithm(first) * base.inverse()
        if name == "lg" and not rest:
            return self._logarithm(first) * self._logarithm(constant(Fraction(10), self.budget)).inverse()
        value = evaluated(name, arguments, self._opaque, self.budget)
        return self._opaque(name, *arguments) if value is None else value

    def _root(self, radicand: Ratio, index: Ratio) -> Ratio:
        degree = index.rational()
        if degree is None or degree.denominator != 1 or not 2 <= degree <= MAX_EXPONENT:
            return self._opaque("root", radicand, index)
        value = radicand.rational()
        if value is not None and value < 0 and degree % 2:
            return self._rational_power(radicand.scaled(Fraction(-1)), 1 / degree).scaled(Fraction(-1))
        return self._rational_power(radicand, 1 / degree)

    def _power(self, base: Ratio, exponent: Ratio) -> Ratio:
        value = exponent.rational()
        if value is None:
            return self._symbolic_power(base, exponent)
        if abs(value.numerator) > MAX_EXPONENT or value.denominator > MAX_EXPONENT:
            raise OverCapError(f"an exponent is over the cap of {MAX_EXPONENT}")
        if not base.top and value <= 0:
            raise ZeroDivisionError("zero to a power that is not positive")
        if value.denominator != 1:
            return self._rational_power(base, value)
        whole = int(value)
        if base.single() is None and abs(whole) > _LARGEST_EXPANDED_POWER:
            self.complete = False
            return self._atom((4, f"sum({base.key()})"), value)
        return base.integer_power(whole)

    def _rational_power(self, base: Ratio, exponent: Fraction) -> Ratio:
        if not base.top:
            return base
        term = base.single()
        if term is None:
            return self._opaque(f"power {exponent}", base)
        monomial, coefficient = term
        result = constant(Fraction(1), self.budget)
        if coefficient < 0:
            if exponent.denominator != 2:
                return self._opaque(f"power {exponent}", base)
            result = self._atom(IMAGINARY).integer_power(exponent.numerator)
        result = result * self._prime_powers(abs(coefficient), exponent)
        if all(name[0] in (0, 2) for name, _ in monomial):
            for name, inner in monomial:
                result = result * self._atom(name, inner * exponent)
            return result
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0][0] == 3 and coefficient > 0:
            return result * self._atom(monomial[0][0], exponent)
        return self._opaque(f"power {exponent}", base)

    def _prime_powers(self, value: Fraction, exponent: Fraction) -> Ratio:
        result = constant(Fraction(1), self.budget)
        for prime, count in self._primes(value):
            result = result * self._atom((0, prime), exponent * count)
        return result

    def _primes(self, value: Fraction) -> Iterator[tuple[str, int]]:
        """Yield the prime factors of a positive rational, in hexadecimal, with their exponents."""
        for number, sign in ((value.numerator, 1), (value.denominator, -1)):
            primes, finished = factorise(number)
            self.complete &= finished
            for prime, count in primes.items():
                yield f"{prime:x}", sign * count

    def _logarithm(self, value: Ratio) -> Ratio:
        """Expand the logarithm of a product of primes, e and pi into a sum."""
        term = value.single()
        if term is None or term[1] < 0 or any(name[0] not in (0, 2) for name, _ in term[0]):
            return self._opaque("ln", value)
        monomial, coefficient = term
        total = constant(Fraction(0), self.budget)
        for prime, count in self._primes(coefficient):
            total = total + self._atom((2, f"ln {prime}")).scaled(Fraction(count))
        for name, exponent in monomial:
            is_e = name == (2, "e")
            logarithm = constant(Fraction(1), self.budget) if is_e else self._atom((2, f"ln {name[1]}"))
            total = total + logarithm.scaled(exponent)
        return total

    def _symbolic_power(self, base: Ratio, exponent: Ratio) -> Ratio:
        """Rewrite ``2^{2n+1}`` as ``2 * (2^n)^2``: one factor per term of the exponent."""
        term = base.single()
        if term is None or exponent.bottom != ONE or term[1] < 0:
            return self._opaque("power", base, exponent)
        monomial, coefficient = term
        result = constant(Fraction(1), self.budget)
        for name, inner in monomial:
            result = result * self._atom_power(name, exponent.scaled(inner))
        for prime, count in self._primes(coefficient):
            result = result * self._atom_power((0, prime), exponent.scaled(Fraction(count)))
        return result

    def _atom_power(self, name: Atom, exponent: Ratio) -> Ratio:
        fixed = exponent.top.get((), Fraction(0))
        if abs(fixed.numerator) > MAX_EXPONENT or fixed.denominator > MAX_EXPONENT:
            raise OverCapError(f"an exponent is over the cap of {MAX_EXPONENT}")
        result = self._atom(name, fixed)
        for monomial, coefficient in exponent.top.items():
            if monomial:
                inner = Ratio({monomial: Fraction(1)}, ONE, self.budget)
                result = result * self._atom((3, f"{name} to the {inner.key()}"), coefficient)
            if name[0] in (1, 4) or any(part[0] in (1, 2, 4) for part, _ in monomial):
                self.complete = False
        return result
