"""Tagged JSON: builtin values cross unchanged, nothing else crosses as itself."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envgym.verifiers.code_tests import equal
from envgym.verifiers.code_tests.tagged_json import MalformedError, Opaque, decode, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**60, max_value=2**400)
    | st.floats()
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


def cross(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


@given(VALUES)
def test_builtin_values_cross_with_their_types(value: Any) -> None:
    back = cross(value)
    assert type(back) is type(value)
    assert equal(value, back)
    assert encode(back) == encode(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from("tszdcfibarx") | st.text(max_size=2), inner, max_size=2)
        ),
    )
)
@example({"r": [{}, {}, {}]})
@example({"d": [[[], 1]]})
@example({"s": [[]]})
@example({"r": [{"i": "1"}, {"i": "2"}, {"i": "0"}]})
def test_any_json_is_a_value_that_crosses_or_malformed(data: Any) -> None:
    """Hostile text raises one error, and never another; what it is read as crosses as any value does."""
    try:
        value = decode(data)
    except MalformedError:
        return
    assert encode(cross(value)) == encode(value)


@pytest.mark.parametrize("value", [range(3), range(5, 1, -2), bytearray(b"a"), math.inf, -0.0, 10**400])
def test_rarer_builtins_cross(value: object) -> None:
    assert repr(cross(value)) == repr(value)


class AlwaysEqual:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class EqualInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def test_an_object_that_equals_everything_equals_nothing_after_crossing() -> None:
    assert isinstance(cross(AlwaysEqual()), Opaque)
    assert not equal(5, cross(AlwaysEqual()))
    assert not equal([1, 2], cross([1, AlwaysEqual()]))
    assert not equal(cross(AlwaysEqual()), cross(AlwaysEqual()))
    assert type(cross(EqualInt(3))) is int
    assert not equal(5, cross(EqualInt(3)))


def test_a_value_that_contains_itself_or_is_too_large_is_malformed() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (loop, [0] * 300_000):
        with pytest.raises(MalformedError):
            encode(value)
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    with pytest.raises(MalformedError):
        decode(deep)


def test_equal_sets_give_equal_text() -> None:
    """Tables are looked up by text, and sets of strings come in any order."""
    words = [f"w{i}" for i in range(50)]
    assert encode(set(words)) == {"s": sorted(words, key=json.dumps)}


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "verdict"),
    [
        (1, 1.0, 0.0, True),
        (1, True, 0.0, True),
        (0.1 + 0.2, 0.3, 0.0, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        (10**6, 10**6 + 1, 1e-3, False),
        (10**400, 0.5, 1e-3, False),
        (math.nan, math.nan, 0.0, True),
        ([1, 2], (1, 2), 0.0, False),
        ([1, 2], [1, 2, 3], 0.0, False),
        ({"a": [1.0]}, {"a": [1.0 + 1e-12]}, 1e-9, True),
        ({"a": 1}, {"b": 1}, 0.0, False),
        ({1, 2}, {2, 1}, 0.0, True),
        ("1", 1, 0.0, False),
        (None, False, 0.0, False),
    ],
)
def test_equality_by_hand(expected: Any, actual: Any, tolerance: float, verdict: bool) -> None:
    assert equal(expected, actual, tolerance) is verdict
