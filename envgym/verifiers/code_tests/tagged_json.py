"""Encode Python values as tagged JSON, for the arguments and results that cross into and out of a sandbox.

Only data crosses. A result is rebuilt from built-in types, whatever class the program used, so an object that
claims to equal everything arrives as an ``Opaque`` that equals nothing. This file imports only the standard
library, because its text is also sent into the sandbox.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["MalformedError", "Opaque", "decode", "encode"]

MAX_DEPTH = 64
MAX_NODES = 200_000
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
    if isinstance(value, list):
        return items(value)
    for tag, kind in (("s", set), ("z", frozenset)):
        if isinstance(value, kind):
            return {tag: sorted(items(value), key=json.dumps)}
    if isinstance(value, dict):
        return {"d": [items(pair) for pair in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"b" if isinstance(value, bytes) else "a": value.hex()}
    if isinstance(value, range):
        return {"r": [{"i": hex(n)} for n in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple):
        return {"t": items(value)}
    return {"x": value.kind if isinstance(value, Opaque) else type(value).__name__[:80]}


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
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise MalformedError(f"not a tagged value: {error}") from None
    raise MalformedError("not a tagged value")


def _complex(body: Any) -> complex:
    real, imaginary = body
    return complex(float.fromhex(real), float.fromhex(imaginary))


def _range(body: Any) -> range:
    start, stop, step = (int(item["i"], 16) for item in body)
    return range(start, stop, step)


_SCALARS: dict[str, Any] = {
    "i": lambda body: int(body, 16),
    "f": float.fromhex,
    "c": _complex,
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "r": _range,
    "x": lambda body: Opaque(str(body)),
}
_COLLECTIONS: dict[str, Any] = {"t": tuple, "s": set, "z": frozenset, "d": dict}
