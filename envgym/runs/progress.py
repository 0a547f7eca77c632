"""Progress of long work, on standard error: a live bar at a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from envgym.terminal import guarded_streams, shown, underlying

__all__ = ["Reporter", "Status", "duration"]

Status = Callable[[], str]
"""Says how far the work within one unit is; called from a thread of its own, every second."""
_QUIET_SECONDS = 5.0
"""Time between two lines for units that end."""
_ALIVE_SECONDS = 15.0
"""Time after which a line says that the work goes on, though no unit has ended."""
_TICK_SECONDS = 1.0
_BAR_SHARE = 6
"""The bar takes this fraction of the terminal's width, so that the words beside it have room."""


def duration(seconds: float) -> str:
    """Format seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Reporter:
    """Reports progress. Use one per process at a time, as a context manager.

    Args:
        live: draw a bar; by default at a terminal that can. ``NO_COLOR`` takes the colours and leaves the bar.
    """

    def __init__(self, live: bool | None = None) -> None:
        self._console = Console(
            file=underlying(sys.stderr), markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        at_terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = at_terminal if live is None else live
        self._note = ""
        self._status: Status | None = None
        self._ended = threading.Event()
        self._ticking: threading.Thread | None = None
        self._bar: Progress | None = None
        self._guard = contextlib.ExitStack()
        self._task = TaskID(0)
        self._name, self._total, self._done, self._first = "", 0, 0, 0
        self._started = self._spoke = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        text = shown(text)
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            self._console.print(text)

    def begin(self, name: str, total: int, done: int = 0, *, status: Status | None = None) -> None:
        """Begin a phase of ``total`` units, ``done`` of which an earlier run did; ``status`` as for ``during``."""
        self.end()
        self._note, self._status = "", status
        name = shown(name)
        self._name, self._total, self._done, self._first = name, total, done, done
        self._started = self._spoke = time.monotonic()
        if self._live:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=min(40, self._console.width // _BAR_SHARE)),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn(
                    "{task.fields[note]}",
                    markup=False,
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
            )
            self._bar = Progress(*columns, console=self._console, transient=True, expand=True)
            self._task = self._bar.add_task(name, total=total, completed=done, note="")
            self._bar.start()
            self._guard.enter_context(guarded_streams())  # rich has put its own in front of them
        self._ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, args=(self._ended,), daemon=True, name="progress")
        self._ticking.start()

    @contextlib.contextmanager
    def during(self, status: Status) -> Iterator[None]:
        """Show how far the work within a unit is, while it goes on: beside the bar, or in a line now and then."""
        self._status = status
        try:
            yield
        finally:
            self._status = None

    def advance(self, note: str = "", *, line: bool = False, limit: float = math.inf) -> None:
        """Count one unit.

        Args:
            note: text to show beside the count.
            line: print a line for it; otherwise lines come at most every few seconds.
            limit: seconds after which the phase ends in any case.
        """
        self._done += 1
        left = f"ETA {duration(min(self.eta(), limit))}"
        note = shown(note)
        # At the bar the estimate stands first, where a narrow terminal does not cut it.
        self._note = " | ".join(filter(None, [left, "" if line else note]))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=self._note)
        note = f"{note} | {left}" if note else left
        due = time.monotonic() - self._spoke >= _QUIET_SECONDS
        if line or (self._bar is None and (due or self._done == self._total)):
            self._spoke = time.monotonic()
            self.say(f"{self._name} {self._done}/{self._total} | {note}")

    def eta(self) -> float:
        """Estimate the seconds left in the phase from the rate so far."""
        made = max(1, self._done - self._first)
        return (time.monotonic() - self._started) / made * (self._total - self._done)

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(_TICK_SECONDS):
            status = self._status
            words = " | ".join(filter(None, [self._note, shown(status()) if status is not None else ""]))
            if self._bar is not None:
                if status is not None:
                    self._bar.update(self._task, note=words)
            elif time.monotonic() - self._spoke >= _ALIVE_SECONDS:
                self._spoke = time.monotonic()
                since = duration(self._spoke - self._started)
                self.say(f"{self._name} {self._done}/{self._total} | {words or 'at work'} | {since} so far")

    def end(self) -> None:
        """End the phase."""
        self._ended.set()
        if self._ticking is not None:
            self._ticking.join()
            self._ticking = None
        if self._bar is not None:
            self._guard.close()
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
