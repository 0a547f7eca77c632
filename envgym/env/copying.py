"""Copy an environment in mid-episode, or refuse: never a copy that shares what it must not."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Copied", "checked_for_pickling", "copied"]

Copied = tuple[Any, ...]
"""What ``__reduce_ex__`` returns: a function, its arguments and the state."""


def copied(state: Mapping[str, Any], memo: dict[int, Any], owner: str) -> dict[str, Any]:
    """Return a deep copy of the attributes of ``owner``.

    Raises:
        TypeError: one cannot be copied; the message names it.
    """
    return {
        name: _named(functools.partial(copy.deepcopy, value, memo), name, owner) for name, value in state.items()
    }


def checked_for_pickling(state: Mapping[str, Any], owner: object) -> None:
    """Refuse attributes that cannot be pickled; references to ``owner`` itself are left out.

    Raises:
        TypeError: names the attribute.
    """

    class Trial(pickle.Pickler):
        def persistent_id(self, found: object) -> str | None:
            return "owner" if found is owner else None

    for name, value in state.items():
        _named(functools.partial(Trial(io.BytesIO()).dump, value), name, type(owner).__name__)


def _named(attempt: Callable[[], Any], name: str, owner: str) -> Any:
    try:
        return attempt()
    except (TypeError, AttributeError, ValueError, pickle.PicklingError, RecursionError) as error:
        raise TypeError(
            f"this {owner} cannot be copied or pickled now: {name}: {error}. Do it between episodes, or make "
            "another instance and play the same actions"
        ) from error
