"""Name the function of an author that code is in, and tell an author's own exits from real ones."""

from __future__ import annotations

import asyncio
import dis
import signal
import sysconfig
import traceback
from collections.abc import Awaitable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

from envgym.errors import EnvgymError

__all__ = ["contained", "culprit", "frames_of", "is_authors", "settled"]

T = TypeVar("T")

_PYTHON = str(Path(sysconfig.get_path("stdlib"))) + "/"
_CORE = str(Path(__file__).parents[1]) + "/"
_RAISE = dis.opmap["RAISE_VARARGS"]


def culprit(frames: Iterable[FrameType]) -> str:
    """Name an author's function, with file and line: the one that the core called last.

    Args:
        frames: from the innermost outwards.

    Returns:
        the name, or ``""`` where no frame is an author's.
    """
    found = ""
    for frame in frames:
        code = frame.f_code
        if not _is_core(code.co_filename):
            module = frame.f_globals.get("__name__", "?")
            found = f"{module}.{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
        elif found:
            break
    return found


def frames_of(coroutine: Any) -> list[FrameType]:
    """Return the frames that a suspended coroutine waits in, from the innermost outwards."""
    frames: list[FrameType] = []
    inner = coroutine
    while inner is not None:
        for frame, waits_for in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if hasattr(inner, frame):
                if (found := getattr(inner, frame)) is not None:
                    frames.append(found)
                inner = getattr(inner, waits_for)
                break
        else:
            break
    return frames[::-1]


class contained:  # noqa: N801 - a context manager
    """Turn what would end more than the author's own code into ``kind``: ``SystemExit`` and its like.

    Ordinary exceptions pass, and so do a real Ctrl-C and a real cancellation.
    """

    __slots__ = ("_kind",)

    def __init__(self, kind: type[EnvgymError]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, Exception) and is_authors(error):
            raise self._kind(f"{type(error).__name__}: {error}".removesuffix(": ")) from error


async def settled(code: Awaitable[T]) -> tuple[T, None] | tuple[Any, BaseException]:
    """Return the result of an author's code or its error: ``SystemExit`` of a task would end its event loop."""
    try:
        return await code, None
    except BaseException as error:
        if not is_authors(error):
            raise
        return None, error


def is_authors(error: BaseException) -> bool:
    """Return whether the code that raised ``error`` meant itself, rather than passing on what it was told.

    A cancellation that nobody asked for, an exit outside a signal handler and a ``raise KeyboardInterrupt`` are
    the author's own. A Ctrl-C, a cancelled task and a coroutine that is closed are not.
    """
    match error:
        case Exception():
            return True
        case asyncio.CancelledError():
            task = _current_task()
            return task is not None and not task.cancelling()
        case SystemExit():
            return not _from_a_signal(error)
        case KeyboardInterrupt() | GeneratorExit():
            return _is_raised_by_a_statement(error) and not _from_a_signal(error)
    return True


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _is_raised_by_a_statement(error: BaseException) -> bool:
    """Return whether a ``raise`` statement began it; a signal or ``close`` interrupts any other instruction."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_lasti >= 0 and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def _from_a_signal(error: BaseException) -> bool:
    handlers = set(map(_code, map(signal.getsignal, signal.valid_signals()))) - {None}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _code(handler: Any) -> CodeType | None:
    """Return the code of a signal's handler, which ``functools.partial`` may bind, as ``asyncio.run`` does."""
    code = getattr(getattr(handler, "func", handler), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _is_core(filename: str) -> bool:
    """Return whether a file is the core's or Python's own; installed packages may lie in Python's folder."""
    of_python = filename.startswith((_PYTHON, "<frozen")) and "site-packages" not in filename
    return of_python or filename.startswith(_CORE)
