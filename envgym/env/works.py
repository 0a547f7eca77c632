"""An author's code under way, and the tasks that belong to it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
from collections.abc import Iterator
from typing import Any

from envgym.env.culprit import culprit, frames_of

__all__ = ["Work", "current_work", "detach", "let_go", "outside", "owner"]


class Work:
    """An author's coroutine in a task of its own; tasks that it starts know it by their context.

    Args:
        name: what stands in messages where no author's function can be named.
        end: time on the loop's clock at which it is to be over.
    """

    def __init__(self, name: str, end: float) -> None:
        self.name = name
        self.end = end
        self.around = _current.get()
        self.inside: set[Work] = set()
        self.task: asyncio.Task[Any]

    def context(self) -> contextvars.Context:
        """Return a copy of the caller's context that belongs to this work."""
        context = contextvars.copy_context()
        context.run(_current.set, self)
        return context

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Mark the work as what the work around it waits for."""
        if self.around is not None:
            self.around.inside.add(self)
        try:
            yield
        finally:
            if self.around is not None:
                self.around.inside.discard(self)

    def where(self) -> str:
        """Name the author's function that is being waited for, at any depth."""
        for inner in self.inside:
            return inner.where()
        return culprit(frames_of(self.task.get_coro())) or self.name

    def chain(self) -> Iterator[Work]:
        """Yield this work and those around it."""
        work: Work | None = self
        while work is not None:
            yield work
            work = work.around


_current: contextvars.ContextVar[Work | None] = contextvars.ContextVar("envgym-work", default=None)


def current_work() -> Work | None:
    """Return the work that the calling code belongs to, if any."""
    return _current.get()


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Start tasks of the core that belong to no author's code around them."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def owner(task: asyncio.Task[Any]) -> Work | None:
    """Return the work that a task belongs to, if any."""
    # Task.get_context came with Python 3.12.
    context = next((c for c in gc.get_referents(task) if isinstance(c, contextvars.Context)), None)
    return context.get(_current) if context is not None else None


def let_go(work: Work) -> None:
    """Keep the end of the loop and of the interpreter from waiting for the tasks of a work."""
    for task in asyncio.all_tasks():
        belongs_to = owner(task)
        if belongs_to is None or work not in belongs_to.chain():
            continue
        if not task.cancelling():
            task.cancel()
        detach(task)
        task.add_done_callback(_look_away)


def detach(task: asyncio.Task[Any]) -> None:
    """Keep the end of the loop and of the interpreter from waiting for a task, which goes on."""
    # asyncio.run waits for every registered task.
    asyncio.tasks._unregister_task(task)
    # Freeing a coroutine throws GeneratorExit into it: one that swallows that would hang the interpreter.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
    task.add_done_callback(_free)


def _free(task: asyncio.Task[Any]) -> None:
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(task))


def _look_away(task: asyncio.Task[Any]) -> None:
    """Take the error of a task, which asyncio would report as one that nobody took."""
    if not task.cancelled():
        task.exception()
