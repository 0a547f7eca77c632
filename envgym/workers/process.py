"""The program of a worker: ``python -m envgym.workers.process``.

It reads one JSON request per line from standard input and writes one JSON reply per line to standard output. Each
request is answered in a forked child, which is limited in memory and killed when its processor time is spent. So a
request leaves no state behind, and a kill costs no second import of slow libraries. The program ends with its
parent, at the end of standard input.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
from typing import Any, TextIO

from envgym.optional_packages import install_command

__all__ = ["main"]

_MEMORY_BYTES = 2 * 2**30
_REPLY_BYTES = 1 << 16


def main() -> None:
    """Serve requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not write into the replies
    _ready(replies)
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            _load(request["load"], replies)
        else:
            _send(replies, _serve(request))


def _load(name: str, replies: TextIO) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        _send(replies, {"status": "error", "reason": f"{missing} is not installed: {install_command(missing)}"})
        return
    if hasattr(module, "warm_up"):
        module.warm_up()
    _ready(replies)


def _ready(replies: TextIO) -> None:
    gc.freeze()  # a collection in a forked child would copy every page of the imported libraries
    _send(replies, {"status": "ready"})


def _send(replies: TextIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()  # safe, because this process has a single thread
    if child == 0:
        os.close(reading)
        _answer_and_exit(request, writing)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], request["wall_seconds"])
    text = os.read(reading, _REPLY_BYTES) if ready else b""
    if not ready:  # the processor-time limit below stops no child that sleeps
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(reading)
    if not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF):
        return {"status": "timeout", "reason": f"no result within {request['seconds']:.2f} s"}
    if not text:
        return {
            "status": "error",
            "reason": f"the worker's child died with status {status}, likely out of memory",
        }
    return {**json.loads(text), "seconds": usage.ru_utime + usage.ru_stime}


def _answer_and_exit(request: dict[str, Any], writing: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # SIGPROF is not handled, so it ends the child even inside a C extension that never returns to Python.
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    reply: dict[str, Any]
    try:
        reply = {"status": "done", "found": sys.modules[request["module"]].answer(request["request"])}
    except Exception as error:  # noqa: BLE001 - whatever the libraries raise is this request's result
        reply = {"status": "error", "reason": f"{type(error).__name__}: {error}"[:500]}
    os.write(writing, json.dumps(reply).encode())
    os._exit(0)  # skips exit handlers, which belong to the parent


if __name__ == "__main__":
    main()
