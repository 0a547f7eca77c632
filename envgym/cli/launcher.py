"""Start a command in several processes on this machine, and end them together.

``torchrun`` does so, too, and over machines; but it allows 30 seconds for the step in hand when it is stopped, and
turns every error into a traceback of its own and exit code 1.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from types import FrameType

__all__ = ["end_with_launcher", "launch"]

_GRACE_SECONDS = 15.0
"""Time that the others have to end by themselves once one has; they find out and close what is open."""
_POLL_SECONDS = 0.05
_LAUNCHED = "ENVGYM_LAUNCHED"
"""Set where standard input ends with the launcher."""


def launch(count: int, command: Sequence[str]) -> int:
    """Run a command in ``count`` processes, and return the exit code of the first.

    Signals go to the first process alone, which ends the others; so it does when this one is killed. Once any
    process has ended, the others have a little time to do so.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    everyone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **sizes}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **everyone, "RANK": str(i), "LOCAL_RANK": str(i)} | ({} if i else {_LAUNCHED: "1"}),
            # Or a Ctrl-C in the terminal would reach each of them, and the first one twice.
            start_new_session=True,
            stdin=subprocess.DEVNULL if i else subprocess.PIPE,
        )
        for i in range(count)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        processes[0].send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(_POLL_SECONDS)
        _wait(processes, _GRACE_SECONDS)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    code = processes[0].returncode
    return code if code > 0 else int(any(process.returncode for process in processes))


def end_with_launcher() -> None:
    """Stop this process as SIGTERM does when its launcher is killed, which then cannot pass a signal on.

    Does nothing in a process that ``launch`` did not start first.
    """
    if os.environ.pop(_LAUNCHED, ""):
        threading.Thread(target=_follow_launcher, daemon=True, name="launcher").start()


def _follow_launcher() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait until all processes have ended, or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        time.sleep(_POLL_SECONDS)
