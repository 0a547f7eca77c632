"""Runs inside the sandbox, after the text of ``wire.py``: a program's function, called on given arguments.

Standard input holds ``{"program", "entry_point", "calls", "call_seconds"}``; one JSON line per call goes to
standard output: ``[index, "value", tagged]`` or ``[index, "raised", type, text]``. A program that cannot be loaded
gives one line with index -1. What the program itself prints is thrown away. Nothing here is trusted by the host:
the program can print such lines too, but it has nothing to put in them except what it computed.
"""

import json
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envgym.verifiers.code.wire import decode, encode

SOURCE = "<solution>"
TEXT_LIMIT = 300


class CallTimeout(BaseException):
    """A call that ran past its deadline."""


def describe(error: BaseException) -> list[str]:
    """The type and the text of an exception, with the line of the program that raised it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == SOURCE]
    where = f" (line {lines[-1]})" if lines else ""
    kind = "TimeoutError" if isinstance(error, CallTimeout) else type(error).__name__
    return [kind, f"{error}"[:TEXT_LIMIT] + where]


def expire(_number: int, _frame: Any) -> None:
    """Signal handler that ends a call."""
    raise CallTimeout("the call took too long")


def main() -> None:
    """Read the request, load the program, make the calls."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def answer(*parts: Any) -> None:
        answers.write("\n" + json.dumps(parts) + "\n")
        answers.flush()

    signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, request["call_seconds"])
        namespace: dict[str, Any] = {"__name__": "solution"}
        code = compile(request["program"], SOURCE, "exec")
        exec(code, namespace)  # noqa: S102 - the sandbox is what this file is for
        function = namespace[request["entry_point"]]
    except BaseException as error:  # noqa: BLE001 - whatever the program did is its own result
        answer(-1, "raised", *describe(error))
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for index, arguments, keywords in request["calls"]:
        try:
            signal.setitimer(signal.ITIMER_REAL, request["call_seconds"])
            result = encode(function(*decode(arguments), **decode(keywords)))
            signal.setitimer(signal.ITIMER_REAL, 0)
            answer(index, "value", result)
        except BaseException as error:  # noqa: BLE001 - whatever the program did is its own result
            signal.setitimer(signal.ITIMER_REAL, 0)
            answer(index, "raised", *describe(error))


main()
os._exit(0)
