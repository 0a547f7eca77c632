"""TOML from outside, read into the values that a setting can have."""

from __future__ import annotations

import datetime
import re
import tomllib
from typing import Any

__all__ = ["check_values", "load_toml"]

_MAX_DEPTH = 32
_BITS = 64
_LONG = re.compile(r"\d[\d_]{999}")
_MANY_PARTS = re.compile(
    r"""(?<![\w-])(?:(?:"[^"\n]{0,99}"|'[^'\n]{0,99}'|[\w-]{1,99})[ \t]{0,9}\.[ \t]{0,9}){33}"""
)
"""A key of many parts, for which the parser takes time by the square of their number."""


def load_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        ValueError: it is not TOML (``tomllib.TOMLDecodeError``), nests too deeply, or holds a number with
            thousands of digits.
    """
    if found := _MANY_PARTS.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"the key at line {line} is more than {_MAX_DEPTH} levels deep, which no key is")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"it nests more than {_MAX_DEPTH} levels deep, which no key takes") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # the interpreter's limit on the digits of a number
        found = _LONG.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise ValueError(f"the number at line {line} has too many digits: {_RANGE}") from None


_RANGE = f"an integer is from -2^{_BITS - 1} to 2^{_BITS - 1}-1"


def check_values(values: dict[str, Any]) -> None:
    """Refuse values that no setting can have and no file can hold.

    Raises:
        ValueError: one of them, with its dotted key: an integer of more than 64 bits, a date, text that is not
            UTF-8 or holds NUL, or more than 32 levels.
    """
    level: list[tuple[str, Any]] = [("", values)]
    for _ in range(_MAX_DEPTH + 1):
        inner: list[tuple[str, Any]] = []
        for place, value in level:
            if isinstance(value, dict):
                inner += [(f"{place}.{key}".removeprefix("."), item) for key, item in value.items()]
                for key in value:
                    _check(f"{place}.{key}".removeprefix("."), key)
            elif isinstance(value, list):
                inner += [(f"{place}.{i}", item) for i, item in enumerate(value)]
            else:
                _check(place, value)
        level = inner
        if not level:
            return
    raise ValueError(f"{level[0][0][:80]}…: nests more than {_MAX_DEPTH} levels deep, which no key takes")


def _check(place: str, value: Any) -> None:
    where = ascii(place)[1:-1][:80]
    if isinstance(value, int) and value.bit_length() >= _BITS and value != -(2 ** (_BITS - 1)):
        raise ValueError(f"{where}: an integer of {value.bit_length()} bits; {_RANGE}")
    if isinstance(value, datetime.date | datetime.time):
        raise ValueError(f"{where}: a date or a time, which no key takes; write text in quotes")
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"{where}: holds a NUL character, which no key takes")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{where}: is not UTF-8 text")
