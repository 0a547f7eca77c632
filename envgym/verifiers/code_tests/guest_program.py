"""Guest, run in the sandbox after ``guest_module.py``: call a program's function on given arguments.

The request is ``{"preamble", "program", "entry_point", "calls", "call_seconds"}``. Each call is answered by
``[index, "value", tagged]`` or ``[index, "raised", type, text]``; index -1 says that the program cannot be loaded.
A call's deadline is processor time, so that no program fails because the machine is busy; one that sleeps meets
the deadline of the whole run instead. The program's output is discarded. The host trusts none of the answers: the
program can forge them, but it knows no expected value to put in them, only what it computed.
"""

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envgym.verifiers.code_tests.guest_channel import CallTimeout, describe, open_channel
    from envgym.verifiers.code_tests.guest_module import load_module, module_path
    from envgym.verifiers.code_tests.tagged_json import decode, encode


NAME = "solution"
"""Name of the program's module: it is imported, so that what it does as ``__main__`` is not done."""


def expire(_number: int, _frame: Any) -> None:
    """End a call, as a signal handler."""
    raise CallTimeout("the call took too long")


def load(request: dict[str, Any]) -> Any:
    """Run the preamble and the program as one module, and return the function."""
    module = load_module(NAME, request["program"], request["preamble"])
    try:
        return getattr(module, request["entry_point"])
    except AttributeError:
        raise NameError(f"the program does not define {request['entry_point']}") from None


def main() -> None:
    """Load the program and make the calls."""
    request, answer = open_channel()
    os.dup2(1, 2)  # no program fails for what it logs
    path = module_path(NAME)
    signal.signal(signal.SIGPROF, expire)
    try:
        signal.setitimer(signal.ITIMER_PROF, request["call_seconds"])
        function = load(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
    except BaseException as error:  # noqa: BLE001 - whatever the program did is its own result
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer(-1, "raised", *describe(error, path))
        return
    for index, arguments, keywords in request["calls"]:
        try:
            signal.setitimer(signal.ITIMER_PROF, request["call_seconds"])
            result = encode(function(*decode(arguments), **decode(keywords)))
            signal.setitimer(signal.ITIMER_PROF, 0)
            answer(index, "value", result)
        except BaseException as error:  # noqa: BLE001 - whatever the program did is its own result
            signal.setitimer(signal.ITIMER_PROF, 0)
            answer(index, "raised", *describe(error, path))


if __name__ == "__main__":  # and not where a process of the program's reads this file again
    main()
    os._exit(0)
