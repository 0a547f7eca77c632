"""Families about structure: linear equations, sequences and combinatorics."""

from __future__ import annotations

import random
from collections import Counter

from envgym_environments.math_problems.problem import THINGS, MathProblem

__all__ = ["combinatorics", "linear_equations", "sequences"]


def linear_equations(rng: random.Random, level: int) -> MathProblem:
    """Draw an equation in x: whole solution, then negative ones, x on both sides, brackets, rational solution."""
    solution = rng.randint(2, 20) if level == 1 else rng.choice([n for n in range(-20, 21) if n])
    factor, shift = rng.randint(2, 9), rng.randint(1, 30)
    match level:
        case 1 | 2:
            total = factor * solution + shift
            equation, expression = f"{factor}x + {shift} = {total}", f"({total}-{shift})/{factor}"
        case 3:
            other = rng.choice([n for n in range(1, 12) if n != factor])
            total = (factor - other) * solution + shift
            equation = f"{factor}x + {shift} = {other}x + {total}"
            expression = f"({total}-{shift})/({factor}-{other})"
        case 4:
            total = factor * (solution + shift)
            equation, expression = f"{factor}(x + {shift}) = {total}", f"{total}/{factor}-{shift}"
        case _:
            other, total = factor + rng.randint(1, 7), rng.randint(31, 99)
            equation = f"{factor}(x + {shift}) = {total} - {other}x"
            expression = f"({total}-{factor}*{shift})/({factor}+{other})"
    return MathProblem(
        question=f"Solve {equation.replace('+ -', '- ')} for x.", expression=expression.replace("--", "+")
    )


def sequences(rng: random.Random, level: int) -> MathProblem:
    """Draw a sequence: next term, nth term, geometric, quadratic, and the sum of an arithmetic series."""
    start, step, place = rng.randint(1, 30), rng.randint(2, 12), rng.randint(8, 30)
    terms = ", ".join(str(start + step * i) for i in range(4))
    match level:
        case 1:
            question, expression = f"What comes next: {terms}?", f"{start + 3 * step}+{step}"
        case 2:
            question = f"What is term {place} of {terms}, ...?"
            expression = f"{start}+{step}*({place}-1)"
        case 3:
            ratio, place = rng.randint(2, 4), rng.randint(6, 9)
            question = f"What is term {place} of {', '.join(str(start * ratio**i) for i in range(4))}, ...?"
            expression = f"{start}*{ratio}**({place}-1)"
        case 4:
            curve = rng.randint(1, 5)
            shown = ", ".join(str(start + step * i + curve * i * i) for i in range(5))
            question = f"What is term {place} of {shown}, ...?"
            expression = f"{start}+{step}*({place}-1)+{curve}*({place}-1)**2"
        case _:
            question = f"What is the sum of the first {place} terms of {terms}, ...?"
            expression = f"{place}*(2*{start}+{step}*({place}-1))/2"
    return MathProblem(question=question, expression=expression)


def combinatorics(rng: random.Random, level: int) -> MathProblem:
    """Draw a count of choices, orders, subsets, words with repeated letters, or shares of equal things."""
    things = rng.choice(THINGS)
    total = rng.randint(5, 18)
    match level:
        case 1:
            a, b, c = (rng.randint(2, 12) for _ in range(3))
            question = f"A menu has {a} soups, {b} mains and {c} desserts. How many meals of one each are there?"
            expression = f"{a}*{b}*{c}"
        case 2:
            part = rng.randint(2, 4)
            question = f"In how many ways can {part} of {total} {things} be put in a row?"
            expression = _falling(total, part)
        case 3:
            part = rng.randint(2, total - 2)
            question = f"In how many ways can {part} of {total} {things} be chosen?"
            expression = f"{_falling(total, part)}/({_falling(part, part)})"
        case 4:
            word = "".join(rng.choice("ABC") for _ in range(rng.randint(5, 8)))
            question = f"In how many orders can the letters of {word} be written?"
            repeats = "*".join(_falling(n, n) for n in Counter(word).values())
            expression = f"{_falling(len(word), len(word))}/({repeats})"
        case _:
            bars = rng.randint(2, 4)
            question = f"In how many ways can {total} equal {things} be shared among {bars + 1} people?"
            expression = f"{_falling(total + bars, bars)}/({_falling(bars, bars)})"
    return MathProblem(question=question, expression=expression)


def _falling(total: int, count: int) -> str:
    """Return ``total * (total - 1) * ...``, ``count`` factors, as text."""
    return "*".join(str(total - i) for i in range(count))
