"""Progress of long work, on standard error: a live bar at a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from envgym.terminal import guarded_streams, shown, underlying

__all__ = ["Reporter", "duration"]

_QUIET_SECONDS = 5.0


def duration(seconds: float) -> str:
    """Format seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Reporter:
    """Reports progress. Use one per process at a time, as a context manager.

    Args:
        live: draw a bar; by default at a terminal, unless ``NO_COLOR`` is set.
    """

    def __init__(self, live: bool | None = None) -> None:
        at_terminal = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._live = at_terminal if live is None else live
        self._console = Console(
            file=underlying(sys.stderr), markup=False, emoji=False, highlight=False, soft_wrap=True
        )
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

    def begin(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of ``total`` units, ``done`` of which an earlier run did."""
        self.end()
        name = shown(name)
        self._name, self._total, self._done, self._first = name, total, done, done
        self._started = self._spoke = time.monotonic()
        if self._live:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(name, total=total, completed=done, note="")
            self._bar.start()
            self._guard.enter_context(guarded_streams())  # rich has put its own in front of them

    def advance(self, note: str = "", *, line: bool = False, limit: float = math.inf) -> None:
        """Count one unit.

        Args:
            note: text to show beside the count.
            line: print a line for it; otherwise lines come at most every few seconds.
            limit: seconds after which the phase ends in any case.
        """
        self._done += 1
        left = f"ETA {duration(min(self.eta(), limit))}"
        note = f"{shown(note)} | {left}" if note else left
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note="" if line else note)
        due = time.monotonic() - self._spoke >= _QUIET_SECONDS
        if line or (self._bar is None and (due or self._done == self._total)):
            self._spoke = time.monotonic()
            self.say(f"{self._name} {self._done}/{self._total} | {note}")

    def eta(self) -> float:
        """Estimate the seconds left in the phase from the rate so far."""
        made = max(1, self._done - self._first)
        return (time.monotonic() - self._started) / made * (self._total - self._done)

    def end(self) -> None:
        """End the phase."""
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
