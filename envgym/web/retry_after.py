"""The wait that a server asks for before the next attempt."""

from __future__ import annotations

import datetime
import email.utils
import math
import re
from collections.abc import Mapping

__all__ = ["retry_after"]

_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,12})?")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``Retry-After`` asks for, or None.

    ``Retry-After`` may hold seconds, fractions of them included, or an HTTP date (RFC 9110, section 10.2.3). A
    date is compared with the server's own clock where it tells the time.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after", "").strip()
    seconds = _number(asked)
    if seconds is not None:
        return seconds
    until = _date(asked)
    if until is None:
        return None
    now = _date(headers.get("date", "")) or datetime.datetime.now(datetime.UTC)
    return max(0.0, (until - now).total_seconds())


def _number(text: str) -> float | None:
    text = text.strip()
    # A header that came twice is joined by a comma.
    first = text.partition(",")[0].strip()
    value = float(first) if _NUMBER.fullmatch(first) else math.nan
    return None if math.isnan(value) else value


def _date(text: str) -> datetime.datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)
