"""The wait that a server asks for, in every form that servers use."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.web.retry_after import retry_after

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "4, 4"}, 4.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": DATE}, 10.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:47 GMT", "date": DATE}, 10.0),
        ({"retry-after": "Sun Nov  6 08:49:47 1994", "date": DATE}, 10.0),
        ({"retry-after": DATE}, 0.0),
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
    ],
)
def test_seconds_fractions_milliseconds_and_dates(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_is_compared_with_this_clock_where_the_server_tells_no_time() -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    asked = retry_after({"retry-after": email.utils.format_datetime(later, usegmt=True)})
    assert asked is not None
    assert 50 < asked <= 100


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_stands_there_is_a_wait_or_none(asked: str, date: str) -> None:
    seconds = retry_after({"retry-after": asked, "retry-after-ms": date, "date": date})
    assert seconds is None or 0 <= seconds < 1e12
