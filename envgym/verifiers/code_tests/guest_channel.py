"""Runs inside the sandbox, after ``tagged_json.py``: the channel of answers, and how exceptions read."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

TEXT_LIMIT = 300


class CallTimeout(BaseException):
    """A call passed its deadline."""


def describe(error: BaseException, path: str = "") -> list[str]:
    """Return the type and the text of an exception, with the line of the file ``path`` that raised it."""
    steps = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in steps if frame.f_code.co_filename == path]
    where = f" (line {lines[-1]})" if lines else ""
    kind = "TimeoutError" if isinstance(error, CallTimeout) else type(error).__name__
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return [kind, f"{text}"[:TEXT_LIMIT] + where]


def open_channel() -> tuple[dict[str, Any], Callable[..., None]]:
    """Read the request from standard input, and reserve standard output for answers.

    Returns:
        the request, and a function that writes its arguments as one line of JSON.
    """
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def answer(*parts: Any) -> None:
        answers.write("\n" + json.dumps(parts) + "\n")
        answers.flush()

    return request, answer
