"""JSON from outside, decoded into values that can be stored and sent on."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["parse_json"]

_MAX_DEPTH = 32


def parse_json(text: str) -> Any:
    """Decode JSON that a model or a server wrote into a value that can be stored and sent on.

    Raises:
        ValueError: it is not JSON, nests deeper than 32 levels, or holds what UTF-8 or JSON cannot: half a
            surrogate pair, ``NaN``, a number that overflows a float.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [item for items in inner for item in items]
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _integer(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError("an integer with too many digits")
    return int(digits)
