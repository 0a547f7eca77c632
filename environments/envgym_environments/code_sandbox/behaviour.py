"""The behaviour of a function on fixed arguments: functions that behave alike ask the same problem."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["behaviour"]

_NUMBERS = tuple(range(-70, 131))
_DRAWN = random.Random(0)
_STRINGS = ("", "a", *("".join(_DRAWN.choice("abcdefgh") for _ in range(n % 14 + 2)) for n in range(40)))
_LISTS = ([], *([_DRAWN.randint(-12, 45) for _ in range(n % 9 + 1)] for n in range(60)))
_ARGUMENTS: dict[str, tuple[Any, ...]] = {"number": _NUMBERS, "string": _STRINGS, "list": _LISTS}


def behaviour(kind: str, apply: Callable[[Any], Any]) -> str:
    """Return a key of what a function does, whatever its name and its wording.

    Args:
        kind: what it takes: ``number``, ``string`` or ``list``.
        apply: the function; it must not change its argument.
    """
    results = [apply(argument) for argument in _ARGUMENTS[kind]]
    return f"{kind} {hashlib.sha256(json.dumps(results).encode()).hexdigest()}"
