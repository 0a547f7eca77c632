"""Families about numbers: arithmetic, fractions and modular arithmetic."""

from __future__ import annotations

import random

from envgym_environments.math_problems.problem import MathProblem

__all__ = ["arithmetic", "fractions", "modular"]

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)


def arithmetic(rng: random.Random, level: int) -> MathProblem:
    """Draw ``level`` operations on whole numbers, with brackets from level 2, larger numbers from level 4."""
    largest = 99 if level < 4 else 999
    expression = str(rng.randint(2, largest))
    for _ in range(level):
        operator = rng.choice("+-*")
        number = rng.randint(2, 12 if operator == "*" else largest)
        bracketed = operator == "*" and not expression.isdigit()
        expression = f"{f'({expression})' if bracketed else expression}{operator}{number}"
    return MathProblem(question=f"What is {expression}?", expression=expression)


def fractions(rng: random.Random, level: int) -> MathProblem:
    """Draw sums, then products and quotients, of fractions with growing denominators."""
    largest = (6, 9, 12, 16, 24)[level - 1]
    operators = "+-" if level == 1 else "+-*/"
    terms = [_fraction(rng, largest) for _ in range(2 + (level > 2) + (level > 4))]
    expression = f"({terms[0]})"
    for term in terms[1:]:
        expression = f"({expression}{rng.choice(operators)}({term}))"
    expression = expression[1:-1]
    return MathProblem(question=f"What is {expression}? Answer with a fraction.", expression=expression)


def modular(rng: random.Random, level: int) -> MathProblem:
    """Draw remainders of numbers, products and powers, then inverses, then pairs of congruences."""
    modulus = rng.randint(3, 9 + 4 * level)
    base, other = rng.randint(10, 99), rng.randint(10, 99)
    match level:
        case 1:
            expression = f"{base}%{modulus}"
            question = f"What is the remainder of {base} divided by {modulus}?"
        case 2:
            expression = f"({base}*{other})%{modulus}"
            question = f"What is the remainder of {base}*{other} divided by {modulus}?"
        case 3:
            power = rng.randint(3, 20)
            expression = f"{base}**{power}%{modulus}"
            question = f"What is the remainder of {base}^{power} divided by {modulus}?"
        case 4:
            return _inverse(rng)
        case _:
            return _congruences(rng)
    return MathProblem(question=question, expression=expression)


def _fraction(rng: random.Random, largest: int) -> str:
    bottom = rng.randint(2, largest)
    return f"{rng.randint(1, bottom - 1)}/{bottom}"


def _inverse(rng: random.Random) -> MathProblem:
    prime = rng.choice(_PRIMES[1:])
    number = rng.randint(2, 99)
    while number % prime in (0, 1):
        number = rng.randint(2, 99)
    # Fermat: the inverse of a modulo a prime p is a^(p-2).
    return MathProblem(
        question=f"Which x from 1 to {prime - 1} gives {number}*x the remainder 1 when divided by {prime}?",
        expression=f"{number}**{prime - 2}%{prime}",
    )


def _congruences(rng: random.Random) -> MathProblem:
    first, second = rng.sample(_PRIMES, 2)
    rest_1, rest_2 = rng.randrange(first), rng.randrange(second)
    # Chinese remainders: each product is its own remainder modulo one prime and 0 modulo the other.
    return MathProblem(
        question=f"What is the least x >= 0 with remainder {rest_1} when divided by {first} "
        f"and remainder {rest_2} when divided by {second}?",
        expression=f"({rest_1}*{second}**{first - 1}+{rest_2}*{first}**{second - 1})%{first * second}",
    )
