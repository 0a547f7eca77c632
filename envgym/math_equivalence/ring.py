"""Exact arithmetic: quotients of polynomials with rational coefficients in independent atoms.

An atom is a prime under a root, a variable, pi, e, i, the logarithm of a prime, or an opaque sub-expression.
Products of distinct fractional powers of primes are linearly independent over the rationals (Besicovitch
1940), so a polynomial in them is zero exactly if no terms are left. Arithmetic uses no floats and is limited by a
budget of work.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

from envgym.math_equivalence.limits import OverCapError

__all__ = ["ONE", "Atom", "Budget", "Monomial", "OverBudgetError", "Polynomial", "Ratio", "constant"]

Atom = tuple[int, str]
"""(rank, name). Rank 0: prime, named in hexadecimal; 1: i; 2: positive constant; 3: variable; 4: opaque."""
Monomial = tuple[tuple[Atom, Fraction], ...]
"""Atoms in sorted order, each with its exponent, none of them zero."""
Polynomial = dict[Monomial, Fraction]
"""Coefficients by monomial, none of them zero."""

IMAGINARY: Atom = (1, "i")
_MAX_BITS = 140_000
_MAX_UNITS = 4_000
_MAX_UNITS_OF_AN_ANSWER = 16_000
_MAX_TERMS = 400


class OverBudgetError(Exception):
    """The exact comparison needs more work than one pair may take; the next stage decides."""


class Budget:
    """Work left, in units of about ten microseconds, for one pair of scalars and for the whole answer."""

    def __init__(self, whole: Budget | None = None) -> None:
        self._whole = whole
        self._left = _MAX_UNITS if whole else _MAX_UNITS_OF_AN_ANSWER

    def charge(self, coefficient: Fraction, times: int = 1) -> None:
        """Pay for ``times`` operations on numbers of the size of ``coefficient``.

        Raises ``OverBudgetError`` if the pair's budget is spent; ``OverCapError`` if the answer's is, or if
        ``coefficient`` is too large.
        """
        bits = coefficient.numerator.bit_length() + coefficient.denominator.bit_length()
        if bits > 2 * _MAX_BITS:
            raise OverCapError("a value too large to be an answer")
        self._spend(times * (1 + (bits // 256) ** 2 // 16))  # schoolbook multiplication is quadratic in the bits

    def _spend(self, units: int) -> None:
        self._left -= units
        if self._whole is not None:
            self._whole._spend(units)
            if self._left < 0:
                raise OverBudgetError
        elif self._left < 0:
            raise OverCapError("more work to compare than an answer may take")


class Ratio:
    """The quotient ``top / bottom`` of two polynomials; arithmetic is charged to ``budget``.

    It is not reduced, because polynomials in many atoms have no cheap common divisor: ``minus`` decides equality.
    """

    __slots__ = ("bottom", "budget", "top")

    def __init__(self, top: Polynomial, bottom: Polynomial, budget: Budget) -> None:
        self.top = top
        self.bottom = bottom
        self.budget = budget

    def __add__(self, other: Ratio) -> Ratio:
        if self.bottom == other.bottom:
            return Ratio(_add(self.top, other.top), self.bottom, self.budget)
        top = _add(self._times(self.top, other.bottom), self._times(other.top, self.bottom))
        return Ratio(top, self._times(self.bottom, other.bottom), self.budget)

    def __mul__(self, other: Ratio) -> Ratio:
        return Ratio(self._times(self.top, other.top), self._times(self.bottom, other.bottom), self.budget)

    def scaled(self, factor: Fraction) -> Ratio:
        """Return the ratio times a nonzero rational."""
        return Ratio({m: c * factor for m, c in self.top.items()}, self.bottom, self.budget)

    def inverse(self) -> Ratio:
        """Return ``1 / self``; raise ``ZeroDivisionError`` for zero.

        The inverse of a single term stays in the numerator, so that ``single`` still sees it as one.
        """
        if not self.top:
            raise ZeroDivisionError("division by zero")
        if len(self.top) == 1:
            ((monomial, coefficient),) = self.top.items()
            inverted, sign = _normal({atom: -exponent for atom, exponent in monomial})
            return Ratio(self._times(self.bottom, {inverted: sign / coefficient}), ONE, self.budget)
        return Ratio(self.bottom, self.top, self.budget)

    def minus(self, other: Ratio) -> Polynomial:
        """Return the numerator of ``self - other`` over the common denominator; it is empty if they are equal."""
        return (self + other.scaled(Fraction(-1))).top

    def cross(self, other: Ratio) -> tuple[Polynomial, Polynomial]:
        """Return both numerators over the common denominator."""
        return self._times(self.top, other.bottom), self._times(other.top, self.bottom)

    def rational(self) -> Fraction | None:
        """Return the value if it is visibly a rational number, else ``None``."""
        if not self.top:
            return Fraction(0)
        if self.bottom == ONE and len(self.top) == 1:
            return self.top.get(())
        return None

    def single(self) -> tuple[Monomial, Fraction] | None:
        """Return (monomial, coefficient) if the ratio is one term, else ``None``."""
        return next(iter(self.top.items())) if len(self.top) == 1 and self.bottom == ONE else None

    def integer_power(self, exponent: int) -> Ratio:
        """Return ``self ** exponent``.

        Raises ``OverCapError`` if a coefficient grows too large, and ``OverBudgetError`` if a sum grows too long.
        """
        if exponent < 0:
            return self.inverse().integer_power(-exponent)
        term = self.single()
        if term is not None:
            monomial, coefficient = term
            bits = max(abs(coefficient.numerator).bit_length(), coefficient.denominator.bit_length())
            if (bits - 1) * exponent > _MAX_BITS:  # refuse before Python computes a number that fills the memory
                raise OverCapError("a power too large to be an answer")
            raised, factor = _normal({atom: e * exponent for atom, e in monomial})
            value = coefficient**exponent * factor
            self.budget.charge(value)
            return Ratio({raised: value}, ONE, self.budget)
        result = Ratio(ONE, ONE, self.budget)
        for bit in bin(exponent)[2:]:
            result = result * result
            if bit == "1":
                result = result * self
        return result

    def key(self) -> str:
        """Return a short name that ratios of the same form share, for use inside an opaque atom."""
        lead = self.bottom[max(self.bottom)]
        digest = hashlib.blake2b(digest_size=16)
        for polynomial in (self.top, self.bottom):
            for monomial, coefficient in sorted(polynomial.items()):
                scaled = coefficient / lead
                digest.update(f"{monomial} {scaled.numerator:x}/{scaled.denominator:x};".encode())
            digest.update(b"over")
        return digest.hexdigest()

    def _times(self, left: Polynomial, right: Polynomial) -> Polynomial:
        if left is ONE or right is ONE:
            return right if left is ONE else left
        result: Polynomial = {}
        for left_monomial, left_coefficient in left.items():
            # Charged per row, before its products: a hostile power is refused while it grows, not once it has.
            self.budget.charge(left_coefficient, len(right))
            for right_monomial, right_coefficient in right.items():
                monomial, factor = _join(left_monomial, right_monomial)
                _accumulate(result, monomial, left_coefficient * right_coefficient * factor)
        if len(result) > _MAX_TERMS:
            raise OverBudgetError
        return result


ONE: Polynomial = {(): Fraction(1)}


def constant(value: Fraction, budget: Budget) -> Ratio:
    """Return a rational number as a ratio."""
    return Ratio({(): value} if value else {}, ONE, budget)


def atom(name: Atom, exponent: Fraction, budget: Budget) -> Ratio:
    """Return ``name ** exponent`` as a ratio."""
    monomial, factor = _normal({name: exponent})
    return Ratio({monomial: factor}, ONE, budget)


def _add(left: Polynomial, right: Polynomial) -> Polynomial:
    result = dict(left)
    for monomial, coefficient in right.items():
        _accumulate(result, monomial, coefficient)
    return result


def _accumulate(polynomial: Polynomial, monomial: Monomial, coefficient: Fraction) -> None:
    total = polynomial.get(monomial, 0) + coefficient
    if total:
        polynomial[monomial] = Fraction(total)
    else:
        polynomial.pop(monomial, None)


def _join(left: Monomial, right: Monomial) -> tuple[Monomial, Fraction]:
    if not left or not right:
        return left or right, Fraction(1)
    exponents = dict(left)
    for name, exponent in right:
        exponents[name] = exponents.get(name, Fraction(0)) + exponent
    return _normal(exponents)


def _normal(exponents: dict[Atom, Fraction]) -> tuple[Monomial, Fraction]:
    """Return the monomial with exponents of primes in [0, 1) and of i in {0, 1}, and the coefficient split off.

    The independence of atoms holds in this form only: ``2^(3/2)`` and ``2 * 2^(1/2)`` must be one monomial.
    """
    factor = Fraction(1)
    kept = []
    for name, exponent in sorted(exponents.items()):
        if name[0] == 0:
            # Exponents of primes end in [0, 1): one form per value, which linear independence needs.
            whole = math.floor(exponent)
            if abs(whole) * int(name[1], 16).bit_length() > _MAX_BITS:
                raise OverCapError("a power too large to be an answer")
            factor *= Fraction(int(name[1], 16)) ** whole
            exponent -= whole
        elif name == IMAGINARY and exponent.denominator == 1:
            factor *= -1 if exponent % 4 in (2, 3) else 1
            exponent = Fraction(exponent % 2)
        if exponent:
            kept.append((name, exponent))
    return tuple(kept), factor
