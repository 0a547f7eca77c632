"""Encode Python values as tagged JSON, for the arguments and results that cross into and out of a sandbox.

Only data crosses. A result is rebuilt from built-in types, whatever class the program used, so an object that
claims to equal everything arrives as an ``Opaque`` that equals nothing. This file imports only the standard
library, because its text is also sent into the sandbox.
"""

from __future__ import annotations

import json
import time
from collections import UserList, UserString, deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["Items", "MalformedError", "Opaque", "decode", "encode"]

MAX_DEPTH = 64
MAX_NODES = 200_000
MAX_ITEMS = 10_000
"""Most items that are taken of an iterator, which may have no end."""
SURE_ITEMS, ITEM_SECONDS = 1_000, 0.1
"""Beyond so many, items are taken only while that has cost less processor time."""
MAX_TEXT = 4_000
"""Longest text of a number that is rebuilt: the arithmetic of longer ones could keep the caller busy."""
_JSON_INTEGER = 2**53


class MalformedError(ValueError):
    """Text that is not a tagged value, or a value that is too deep or too large."""


class Opaque:
    """Stands for an object of a class that does not cross, such as a regular expression's match.

    It is true, and equal to nothing, itself included.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.kind} object>"


class Items(Iterator[Any]):
    """Stands for a generator or another iterator: gives the items that crossed, and equals only itself.

    Args:
        items: the first items.
        whole: whether they are all; if not, going past them raises.
    """

    def __init__(self, items: list[Any], whole: bool) -> None:
        self.left = items[::-1]
        self.whole = whole

    def __next__(self) -> Any:
        if self.left:
            return self.left.pop()
        if self.whole:
            raise StopIteration
        raise MalformedError("an iterator is too long to cross whole")

    def __repr__(self) -> str:
        return "<iterator>"


class _Budget:
    def __init__(self) -> None:
        self.nodes = MAX_NODES

    def spend(self, depth: int) -> None:
        self.nodes -= 1
        if self.nodes < 0 or depth > MAX_DEPTH:
            raise MalformedError("the value is too large or too deep")


def encode(value: Any) -> Any:
    """Turn a value into one that ``json.dumps`` accepts; equal sets give equal text.

    Raises:
        MalformedError: the value is too large or too deep, e.g. because it contains itself.
    """
    return _encode(value, _Budget(), 0)


def decode(data: Any) -> Any:
    """Rebuild a value from parsed JSON; classes that did not cross become ``Opaque``.

    Raises:
        MalformedError: the JSON is not a tagged value.
    """
    return _decode(data, _Budget(), 0)


def _encode(value: Any, budget: _Budget, depth: int) -> Any:
    budget.spend(depth)

    def items(values: Any) -> list[Any]:
        return [_encode(v, budget, depth + 1) for v in values]

    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int(value)
        return number if abs(number) < _JSON_INTEGER else {"i": hex(number)}
    if isinstance(value, float):
        return {"f": float.hex(value)}
    if isinstance(value, complex):
        return {"c": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, (list, UserList)):
        return items(value)
    for tag, kind in (("s", set), ("z", frozenset)):
        if isinstance(value, kind):
            return {tag: sorted(items(value), key=json.dumps)}
    for tag, view in _VIEWS.items():
        if isinstance(value, view):
            return {tag: items(value)}
    if isinstance(value, (Mapping, MappingProxyType)):
        return {"d": [items(pair) for pair in value.items()]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"a" if isinstance(value, bytearray) else "b": bytes(value).hex()}
    if isinstance(value, range):
        return {"r": [{"i": hex(n)} for n in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple):
        return {"t": items(value)}
    if isinstance(value, deque):
        return {"q": items(value)}
    if isinstance(value, Opaque):
        return {"x": value.kind}
    return _encode_other(value, budget, depth)


def _encode_other(value: Any, budget: _Budget, depth: int) -> Any:
    """Encode a value whose type is told by its name, so that no module is imported for it, or by what it does."""
    if isinstance(value, Items):
        return {"g": [[_encode(item, budget, depth + 1) for item in reversed(value.left)], value.whole]}
    if callable(getattr(type(value), "__next__", None)):
        return {"g": _taken(value, budget, depth)}
    for kind in type(value).__mro__:
        if found := _NAMED.get(f"{kind.__module__}.{kind.__qualname__}"):
            tag, text = found
            return {tag: str(text(value))}
    if isinstance(value, UserString):
        return str(value)
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return _encode(value.item(), budget, depth + 1)  # a number of numpy's equals the number that it holds
    return {"x": type(value).__name__[:80]}


def _taken(iterator: Any, budget: _Budget, depth: int) -> list[Any]:
    """Return the first items of an iterator, encoded, and whether they are all."""
    items: list[Any] = []
    started = time.process_time()
    for item in iterator:
        if len(items) >= SURE_ITEMS and (len(items) >= MAX_ITEMS or time.process_time() - started > ITEM_SECONDS):
            return [items, False]
        items.append(_encode(item, budget, depth + 1))
    return [items, True]


def _decode(data: Any, budget: _Budget, depth: int) -> Any:
    budget.spend(depth)
    if data is None or isinstance(data, (bool, str, int)):
        return data
    if isinstance(data, list):
        return [_decode(item, budget, depth + 1) for item in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise MalformedError("not a tagged value")
    tag, body = next(iter(data.items()))
    try:
        if tag in _SCALARS:
            return _SCALARS[tag](body)
        if tag in _COLLECTIONS and isinstance(body, list):
            return _COLLECTIONS[tag]([_decode(item, budget, depth + 1) for item in body])
        if tag in _TEXTS and isinstance(body, str) and len(body) <= MAX_TEXT:
            return _TEXTS[tag](body)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise MalformedError(f"not a tagged value: {error}") from None
    raise MalformedError("not a tagged value")


def _complex(body: Any) -> complex:
    real, imaginary = body
    return complex(float.fromhex(real), float.fromhex(imaginary))


def _range(body: Any) -> range:
    start, stop, step = (int(item["i"], 16) for item in body)
    return range(start, stop, step)


def _items(body: list[Any]) -> Items:
    items, whole = body
    if not isinstance(items, list) or not isinstance(whole, bool):
        raise ValueError("no items")
    return Items(items, whole)


def _decimal(body: str) -> Any:
    from decimal import Decimal

    value = Decimal(body)
    if value.is_snan():
        raise ValueError("a signalling NaN raises whenever it is compared")
    return value


def _fraction(body: str) -> Any:
    from fractions import Fraction

    return Fraction(*(int(part, 16) for part in body.split("/")))


def _of_datetime(kind: str) -> Callable[[str], Any]:
    def read(body: str) -> Any:
        import datetime

        if kind == "timedelta":
            return datetime.timedelta(*map(int, body.split("/")))
        return getattr(datetime, kind).fromisoformat(body)

    return read


_SCALARS: dict[str, Any] = {
    "i": lambda body: int(body, 16),
    "f": float.fromhex,
    "c": _complex,
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "r": _range,
    "x": lambda body: Opaque(str(body)),
}
_COLLECTIONS: dict[str, Any] = {
    "t": tuple,
    "s": set,
    "z": frozenset,
    "d": dict,
    "q": deque,
    "g": _items,
    "vk": lambda body: dict.fromkeys(body).keys(),
    "vi": lambda body: dict(body).items(),
    "vv": lambda body: dict(enumerate(body)).values(),
}
_VIEWS: dict[str, type] = {"vk": type({}.keys()), "vi": type({}.items()), "vv": type({}.values())}
_TEXTS: dict[str, Callable[[str], Any]] = {
    "D": _decimal,
    "F": _fraction,
    "dt": _of_datetime("datetime"),
    "dd": _of_datetime("date"),
    "dc": _of_datetime("time"),
    "dl": _of_datetime("timedelta"),
}
_NAMED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "decimal.Decimal": ("D", str),
    "fractions.Fraction": ("F", lambda value: f"{value.numerator:x}/{value.denominator:x}"),
    "datetime.datetime": ("dt", lambda value: value.isoformat()),
    "datetime.date": ("dd", lambda value: value.isoformat()),
    "datetime.time": ("dc", lambda value: value.isoformat()),
    "datetime.timedelta": ("dl", lambda value: f"{value.days}/{value.seconds}/{value.microseconds}"),
}
"""Tag and text by the name of the class."""
