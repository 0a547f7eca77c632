"""Tagged JSON: builtin values cross unchanged, nothing else crosses as itself."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import math
import time
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, deque
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envgym.verifiers.code_tests import equal
from envgym.verifiers.code_tests.tagged_json import Items, MalformedError, Opaque, decode, encode

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


TAGS = [*"tszdcfibarxqgDF", "vk", "vi", "vv", "dt", "dd", "dc", "dl"]


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
            | st.dictionaries(st.sampled_from(TAGS) | st.text(max_size=2), inner, max_size=2)
        ),
    )
)
@example({"r": [{}, {}, {}]})
@example({"d": [[[], 1]]})
@example({"s": [[]]})
@example({"r": [{"i": "1"}, {"i": "2"}, {"i": "0"}]})
@example({"g": [[1], True]})
@example({"g": [1, True]})
@example({"g": [[1], 2]})
@example({"vk": [[]]})
@example({"vi": [[1]]})
@example({"D": "sNaN"})
@example({"D": "1e9999999999999999999999"})
@example({"F": "1/0"})
@example({"F": "1/2/3"})
@example({"dl": "999999999999/0/0"})
@example({"dt": "2020-13-01"})
def test_any_json_is_a_value_that_crosses_or_malformed(data: Any) -> None:
    """Hostile text raises one error, and never another; what it is read as crosses as any value does."""
    try:
        value = decode(data)
    except MalformedError:
        return
    assert encode(cross(value)) == encode(value)


RARER = [
    range(3),
    range(5, 1, -2),
    bytearray(b"a"),
    math.inf,
    -0.0,
    10**400,
    Decimal("1.50"),
    Decimal("-Infinity"),
    Fraction(-22, 7),
    dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=dt.UTC),
    dt.date(1, 1, 1),
    dt.time(23, 59),
    dt.timedelta(days=-3, microseconds=7),
    deque([1, [2]]),
    {2: 1, 1: 2}.keys(),
    {2: [1]}.items(),
    {2: [1], 3: 4}.values(),
]


@pytest.mark.parametrize("value", RARER, ids=repr)
def test_rarer_builtins_cross(value: object) -> None:
    assert repr(cross(value)) == repr(value)


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (memoryview(b"ab"), b"ab"),
        (UserList([1]), [1]),
        (UserDict({1: 2}), {1: 2}),
        (UserString("ab"), "ab"),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (ChainMap({1: 2}, {3: 4}), {1: 2, 3: 4}),
        (MappingProxyType({1: 2}), {1: 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_equals_a_builtin_crosses_as_that(value: Any, same: Any) -> None:
    assert value == same
    assert cross(value) == same
    assert type(cross(value)) is type(same)


def test_numbers_of_numpy_cross_as_the_numbers_that_they_hold() -> None:
    numpy = pytest.importorskip("numpy")
    held = [numpy.int64(3), numpy.float32(0.5), numpy.bool_(True), numpy.array(7)]
    assert [repr(cross(number)) for number in held] == ["3", "0.5", "True", "7"]
    assert isinstance(cross(numpy.array([1])), Opaque)


@pytest.mark.parametrize(
    "make",
    [lambda: (n for n in (1, 2)), lambda: iter([1, 2]), lambda: map(int, "12"), lambda: reversed([2, 1])],
)
def test_an_iterator_crosses_with_its_items(make: Any) -> None:
    """Like the iterator itself it equals no list, and it can be walked once."""
    back = cross(make())
    assert isinstance(back, Items)
    assert cross(back).left == back.left, "crossing again takes nothing"
    assert not equal([1, 2], back)
    assert list(back) == [1, 2]
    assert list(back) == []
    assert list(cross(make())) == list(make())


def test_an_iterator_without_an_end_crosses_with_its_first_items() -> None:
    back = cross(itertools.count())
    assert list(itertools.islice(back, 1000)) == list(range(1000))
    with pytest.raises(MalformedError, match="too long"):
        list(back)
    started = time.process_time()
    cross(math.factorial(2000) for _ in itertools.count())
    assert time.process_time() - started < 5.0


def test_numbers_of_any_length_are_compared_at_once() -> None:
    """Exact arithmetic on long numbers is slow, and the caller is an event loop."""
    started = time.process_time()
    for text in (Decimal("1" * 10**6), Decimal("1e-999999999"), Fraction(3**99_999, 2**99_999)):
        with contextlib.suppress(MalformedError):
            assert not equal(7, cross(text))
            assert not equal([7] * 20, cross([text] * 20))
    assert time.process_time() - started < 5.0


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
        (0.5, Fraction(1, 2), 0.0, True),
        (0.5, Decimal("0.5"), 0.0, True),
        (1 / 3, Fraction(1, 3), 0.0, False),
        (1 / 3, Fraction(1, 3), 1e-9, True),
        (math.nan, Decimal("NaN"), 0.0, True),
        (10**400, Decimal("1e400"), 0.0, True),
        (0.5, Fraction(10**400), 1e-9, False),
    ],
)
def test_equality_by_hand(expected: Any, actual: Any, tolerance: float, verdict: bool) -> None:
    assert equal(expected, actual, tolerance) is verdict
