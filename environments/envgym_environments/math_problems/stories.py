"""Word problems: ``level`` events change the number of someone's things."""

from __future__ import annotations

import random

from envgym_environments.math_problems.problem import THINGS, MathProblem

__all__ = ["word_problems"]

_NAMES = ("Ana", "Ben", "Eva", "Ira", "Kim", "Lee", "Max", "Mia", "Noa", "Sam", "Tom", "Zoe")


def word_problems(rng: random.Random, level: int) -> MathProblem:
    """Draw a chain of ``level`` events; every number on the way is a whole number above 0."""
    name, things = rng.choice(_NAMES), rng.choice(THINGS)
    count = rng.randint(4, 99)
    sentences, expression = [f"{name} has {count} {things}."], str(count)
    for _ in range(level):
        sentence, operator, number = _event(rng, count)
        sentences.append(sentence)
        if operator in "*/" and not expression.isdigit():
            expression = f"({expression})"
        expression = f"{expression}{operator}{number}"
        count = {"+": count + number, "-": count - number, "*": count * number, "/": count // number}[operator]
    sentences.append(f"How many {things} now?")
    return MathProblem(question=" ".join(sentences), expression=expression)


def _event(rng: random.Random, count: int) -> tuple[str, str, int]:
    """Return a sentence, and the operator and number that it applies to ``count``."""
    divisors = [n for n in range(2, 13) if count % n == 0 and count > n]
    choices = ["+", "-", "*"] if count > 2 else ["+", "*"]
    match rng.choice(choices + ["/"] * bool(divisors)):
        case "+":
            number = rng.randint(2, 99)
            return rng.choice(("Then {} more come.", "{} are added.")).format(number), "+", number
        case "-":
            number = rng.randint(1, count - 1)
            return rng.choice(("Then {} are lost.", "{} are sold.")).format(number), "-", number
        case "*":
            number = rng.randint(2, 9)
            return f"The number grows {number} times as large.", "*", number
        case _:
            number = rng.choice(divisors)
            return f"They are split among {number}, and one share is kept.", "/", number
