"""Stop cleanly: the first Ctrl-C or SIGTERM ends the run after the work in hand, the second at once."""

from __future__ import annotations

import _thread
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopRequest"]


class StopRequest:
    """Listens for signals while entered. Only works in the main thread; elsewhere no stop is ever requested.

    The first signal is a request; what was listening before gets the others.

    Args:
        say: prints a line; called at once, with what happens now.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.requested = False
        self.doing = "the work in hand"
        """What is finished before the run ends."""
        self._say = say
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._on_signal)
            except ValueError:  # Python allows handlers in the main thread only
                return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            text = f"stopping: {self.doing} is finished and saved first; Ctrl-C again stops at once"
            # The signal may have come in the middle of another line, which one more in this thread would spoil.
            _thread.start_new_thread(self._say, (text,))
            return
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, previous)
            os.kill(os.getpid(), number)
