"""Detect a class written for another version of an interface from the parameters of its methods."""

from __future__ import annotations

import functools
import inspect
from typing import Any

__all__ = ["mismatch"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def mismatch(found: type, base: type) -> str:
    """Return a message on the first method of ``found`` that cannot be called as ``base`` declares it, or ``""``.

    A method may take more than the base's, as long as the rest has defaults, and may be asynchronous where the
    base's is not. A run asks for the same class for each of its instances; the answer is kept.
    """
    return _mismatch(found, base)


@functools.lru_cache(maxsize=256)
def _mismatch(found: Any, base: Any) -> str:
    if abstract := sorted(getattr(found, "__abstractmethods__", ())):
        return f"it lacks {', '.join(f'{name}()' for name in abstract)}"
    for name, declared in inspect.getmembers(base, inspect.isfunction):  # inherited ones, too
        own = getattr(found, name, None)
        if name.startswith("_") or not inspect.isfunction(own) or own is declared:
            continue
        wanted = inspect.signature(declared)
        given = [p for p in wanted.parameters.values() if p.name != "self" and p.kind in _NAMED]
        positional = [None for p in given if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        keywords = {p.name: None for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY}
        try:
            inspect.signature(own).bind(None, *positional, **keywords)
        except TypeError:
            return f"{name}{inspect.signature(own)} cannot be called as {name}{wanted}"
    return ""
