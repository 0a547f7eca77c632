"""The command at a terminal, and a stage of training that takes its time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from envgym.errors import UserError
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.stage import Stage
from envgym_trainers.stages.stopping import StopRequest

PATIENCE = 90.0
"""Seconds after which a test gives a loaded machine up."""
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Slow(Stage):
    """Makes steps that do nothing, until it is stopped."""

    class Config(Stage.Config):
        """``trouble`` says what goes wrong."""

        steps: int = 100_000
        trouble: str = ""

    config: Config

    async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
        """Step until told to stop."""
        if self.config.trouble == "refuse":
            raise UserError("this cannot be done here")
        done = len(folder.metrics())
        with StopRequest(reporter.say) as stop:
            reporter.begin("step", self.config.steps, done)
            while not stop.requested and done < self.config.steps:
                stop.doing = f"step {done + 1}"
                done += 1
                folder.append_metrics({"step": done})
                if self.config.trouble == "refuse_late":
                    raise UserError("this could not go on")
                reporter.advance("fine", line=True)
                await asyncio.sleep(0.05)
            while self.config.trouble:
                await self._hang()
        reporter.say(f"stopped after step {done}")
        return None

    async def _hang(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            if self.config.trouble == "stubborn":
                _block()


def _block() -> None:
    """Keep the event loop, as a computation does that nobody can interrupt."""
    time.sleep(3600)


class Terminal:
    """``envgym`` with a terminal of its own as its standard streams."""

    def __init__(self, *words: str, columns: int = 80, folder: Path | None = None, **env: str) -> None:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        program = "from envgym.cli import main; main()"
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
        environment = {**inherited, "TERM": "xterm", "PYTHONPATH": path, **env}
        self.text = ""
        self.pid, self._handle = pty.fork()
        if self.pid == 0:
            os.chdir(folder or Path.cwd())
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(sys.executable, [sys.executable, "-c", program, *words], environment)
        fcntl.ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def until(self, pattern: str) -> Self:
        """Read until the text matches."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert self._read(end), f"no {pattern!r} in {self.text!r}"
        return self

    def press(self, keys: str) -> Self:
        os.write(self._handle, keys.encode())
        return self

    def wait(self) -> int:
        """Read to the end, and return the exit code."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def lines(self) -> list[str]:
        """What was drawn, one frame of a bar after the other, without codes."""
        return [_CODES.sub("", line) for line in re.split(r"\r\n|\r|\n|\x1b\[2K", self.text)]

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._handle], [], [], max(0.0, end - time.monotonic()))
        try:
            found = os.read(self._handle, 65536) if ready else b""
        except OSError:  # the other side is closed
            return False
        self.text += found.decode("utf-8", "replace")
        return bool(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self._handle)
