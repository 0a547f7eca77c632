"""What other threads put into the queue of the engine's worker, and how it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from envgym.errors import PolicyError
from envgym_trainers.engine.cache import Row
from envgym_trainers.engine.interface import Sampled, VersionSpan

__all__ = ["Errand", "Request"]


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A row to sample for, and the future of its completion."""

    row: Row
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Sampled]
    waited: int = 0
    """Number of steps that it was not admitted to."""
    spans: list[VersionSpan] = field(default_factory=list)
    """Which weights sampled for it, newest last."""

    def note(self, version: int) -> None:
        """Count one more token, of weights ``version``."""
        last = self.spans[-1] if self.spans else None
        if last and last.version == version:
            self.spans[-1] = VersionSpan(version, last.tokens + 1)
        else:
            self.spans.append(VersionSpan(version, 1))

    def deliver(self, result: Sampled | PolicyError) -> None:
        """Settle the future in its own thread."""

        def settle() -> None:
            if self.future.done():
                return
            if isinstance(result, PolicyError):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)

        # The loop may be closed already; drop the result.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(settle)


@dataclass(slots=True, kw_only=True, eq=False)
class Errand:
    """A callback to run between forward passes."""

    do: Callable[[], None]
    done: Future[None] = field(default_factory=Future)

    def run(self) -> None:
        """Call it; what it raises stops the worker, and is told as ``PolicyError``."""
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            self.do()
        except BaseException as error:
            self.done.set_exception(PolicyError(f"the engine stopped: {type(error).__name__}: {error}"))
            raise
        self.done.set_result(None)

    def refuse(self, error: PolicyError) -> None:
        """Fail it without a call."""
        if self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)
