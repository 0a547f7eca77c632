"""Dates and times of day, which look like quotients, differences and ratios but are none of them."""

from __future__ import annotations

import re

__all__ = ["read_moment"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FULL_MONTHS = (
    *(
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
    ),
    *("december", "sept"),
)
_MONTH = rf"({'|'.join((*_FULL_MONTHS, *_MONTHS))})\.?"
_DAY = r"([0-9]{1,2})(?:\s*(?:st|nd|rd|th))?"
_YEAR = r"(?:\s*,?\s*([0-9]{4}))?"
_MONTH_FIRST = re.compile(rf"{_MONTH}\s+(?:the\s+)?{_DAY}{_YEAR}")
_DAY_FIRST = re.compile(rf"(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}{_YEAR}")
_YEAR_FIRST = re.compile(r"([0-9]{4})\s*([-/.])\s*([0-9]{1,2})\s*\2\s*([0-9]{1,2})")
_YEAR_LAST = re.compile(r"([0-9]{1,2})\s*([-/.])\s*([0-9]{1,2})\s*\2\s*([0-9]{4})")
_TIME = re.compile(r"([0-9]{1,2})(?:\s*[:.]\s*([0-9]{2}))?\s*([ap])\s*\.?\s*m\s*\.?(?:\s*sharp)?")


def read_moment(text: str) -> str | None:
    """Return one spelling of the date or the time of day that ``text`` is, or ``None``.

    ``5/1/2021`` has no known order: it equals itself with leading zeros, and a date in words only where the order
    shows in a day over 12.
    """
    text = " ".join(text.replace("{", " ").replace("}", " ").casefold().split())
    if match := _MONTH_FIRST.fullmatch(text):
        return _date(match[3], match[1], match[2])
    if match := _DAY_FIRST.fullmatch(text):
        return _date(match[3], match[2], match[1])
    if match := _YEAR_FIRST.fullmatch(text):
        return _numeric_date(match[1], match[3], match[4])
    if match := _YEAR_LAST.fullmatch(text):
        first, second = int(match[1]), int(match[3])
        if first > 12 >= second:
            return _numeric_date(match[4], match[3], match[1])
        if second > 12 >= first or first == second:
            return _numeric_date(match[4], match[1], match[3])
        return f"date {first}/{second}/{match[4]}"
    if (match := _TIME.fullmatch(text)) and 1 <= int(match[1]) <= 12:
        return f"time {int(match[1])}:{match[2] or '00'} {match[3]}m"
    return None


def _date(year: str | None, month: str, day: str) -> str:
    return f"date {year or 'any year'} {_MONTHS.index(month[:3]) + 1} {int(day)}"


def _numeric_date(year: str, month: str, day: str) -> str:
    return f"date {year} {int(month)} {int(day)}"
