"""Guest, run after ``guest_module.py`` in a sandbox that no policy's program enters: run tests that hold answers.

A stand-in replaces the function under test. While recording, it calls the reference solution and reports the
arguments; while replaying, it answers from a table of the results of the policy's program in another sandbox.

The request is ``{"mode", "setup", "entry_point", "tests", "table"}``. While recording, each call is reported as
``[test, "call", arguments, keywords]``. A test is answered by ``[test, "passed"]``, by
``[test, "failed", type, text]``, or, when the table lacks a call, by ``[test, "needs", arguments, keywords]``.
"""

import builtins
import json
import os
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envgym.sandbox.source_file import execute
    from envgym.verifiers.code_tests.guest_channel import describe, open_channel
    from envgym.verifiers.code_tests.guest_module import load_module
    from envgym.verifiers.code_tests.tagged_json import decode, encode


class Stop(BaseException):
    """Raised to end a test whose outcome is settled."""


class Recorder:
    """Calls the reference solution with copies, and returns its result as it would cross from another process."""

    def __init__(self, function: Any, answer: Any) -> None:
        self.function = function
        self.answer = answer
        self.test = 0
        self.settled: list[Any] | None = None

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        tagged = [encode(list(arguments)), encode(keywords)]
        self.answer(self.test, "call", *tagged)
        return decode(encode(self.function(*decode(tagged[0]), **decode(tagged[1]))))


class Replayer:
    """Answers calls from a table; equal calls get their answers in the order in which they were made."""

    def __init__(self, table: Any) -> None:
        self.results: dict[str, list[Any]] = {}
        for arguments, keywords, result in table:
            self.results.setdefault(json.dumps([arguments, keywords]), []).append(result)
        self.test = 0
        self.settled: list[Any] | None = None
        """Outcome of the test, kept here because the test may catch the exception that stops it."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        tagged = [encode(list(arguments)), encode(keywords)]
        waiting = self.results.get(json.dumps(tagged))
        if not waiting:
            self.settled = ["needs", *tagged]
            raise Stop
        kind, *body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if kind == "value":
            return decode(body[0])
        if kind == "died":
            self.settled = ["failed", "RuntimeError", body[0]]
            raise Stop
        raise exception(*body)


def exception(kind: str, text: str) -> Exception:
    """Return a built-in exception by name; any other becomes a ``RuntimeError``."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            return found(text)
        except TypeError:
            pass
    return RuntimeError(f"{kind}: {text}")


def main() -> None:
    """Run the tests in order."""
    request, answer = open_channel()
    reference = vars(load_module("reference", request["setup"]))
    function = reference[request["entry_point"]]
    stand_in: Any = Recorder(function, answer) if request["mode"] == "record" else Replayer(request["table"])
    tests = vars(load_module("tests", ""))
    tests |= {name: value for name, value in reference.items() if name not in tests}
    tests |= {request["entry_point"]: stand_in, "candidate": stand_in}
    for number, source in request["tests"]:
        stand_in.test, stand_in.settled = number, None
        random.seed(0)
        try:
            execute(source, f"<test {number}>", tests)
            outcome = ["passed"]
        except BaseException as error:  # noqa: BLE001 - a failed test is an answer
            outcome = ["failed", *describe(error)]
        answer(number, *(stand_in.settled or outcome))


if __name__ == "__main__":
    main()
    os._exit(0)
