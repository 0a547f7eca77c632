"""An author's code under way, and the tasks that belong to it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import weakref
from collections.abc import Iterator
from typing import Any

from envgym.env.culprit import culprit, frames_of

__all__ = [
    "Work",
    "current_work",
    "detach",
    "enlist",
    "follow_tasks",
    "leave_behind",
    "left_behind",
    "let_go",
    "outside",
    "owner",
]


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
        self._outermost: Work | None = self.around.outermost if self.around is not None else None
        self.inside: set[Work] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        """Tasks under way that it and the works inside it started; of an outermost work alone."""
        self.task: asyncio.Task[Any] | None = None
        """Its own task; ``None`` until it has been begun, and once it is known to be over."""
        self._closed = False

    @property
    def outermost(self) -> Work:
        """The work around all others."""
        return self._outermost or self

    @property
    def over(self) -> bool:
        """True once its own code is over."""
        return self._closed or (self.task is not None and self.task.done())

    def close(self) -> None:
        """Let go of its task, which is over.

        The task's context refers to the work: without this, only a search for cycles would free them.
        """
        self.task, self._closed = None, True

    def context(self) -> contextvars.Context:
        """Return a copy of the caller's context that belongs to this work."""
        context = contextvars.copy_context()
        context.run(_current.set, self)
        return context

    def where(self) -> str:
        """Name the author's function that is being waited for, at any depth."""
        for inner in self.inside:
            return inner.where()
        return (culprit(frames_of(self.task.get_coro())) if self.task is not None else "") or self.name

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


_left: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, set[Work]] = weakref.WeakKeyDictionary()
"""Outermost works that were waited for, and that left tasks under way."""


def follow_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Have the works know the tasks that their code starts: to look for them among all is too slow for many.

    A factory that the loop has already goes on making its tasks.
    """
    given: Any = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, code: Any, **options: Any) -> Any:
        task = asyncio.Task(code, loop=loop, **options) if given is None else given(loop, code, **options)
        context = options.get("context")
        work = _current.get() if context is None else context.get(_current)
        if work is not None:
            enlist(task, work)
        return task

    loop.set_task_factory(make)


def enlist(task: asyncio.Task[Any], work: Work) -> None:
    """Note a task that the code of ``work`` started."""
    if task.done():
        return
    outermost = work.outermost
    outermost.tasks.add(task)
    task.add_done_callback(outermost.tasks.discard)
    if outermost.over:
        leave_behind(outermost)


def leave_behind(outermost: Work) -> None:
    """Note that an outermost work is no longer waited for, and has tasks under way."""
    _left.setdefault(asyncio.get_running_loop(), set()).add(outermost)


def left_behind() -> Iterator[asyncio.Task[Any]]:
    """Yield, once each, the tasks of the running loop that code which is over left under way."""
    left = _left.get(asyncio.get_running_loop(), set())
    for outermost in tuple(left):
        for task in tuple(outermost.tasks):
            work = owner(task)
            if work is not None and all(around.over for around in work.chain()):
                outermost.tasks.discard(task)
                yield task
        if not outermost.tasks:
            left.discard(outermost)


def let_go(work: Work) -> None:
    """Keep the end of the loop and of the interpreter from waiting for the tasks of a work."""
    for task in (*work.outermost.tasks, *((work.task,) if work.task is not None else ())):
        belongs_to = owner(task)
        if belongs_to is None or work not in belongs_to.chain():
            continue
        if not task.cancelling():
            task.cancel()
        work.outermost.tasks.discard(task)
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
