"""Run a command, and end it with everything that it started when the process that started this one is gone.

    python leash.py COMMAND …

A process that dies by SIGKILL cannot end what it started; its end of this one's standard input closes nonetheless.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Run the command until it ends, or standard input does."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_follow, args=(child,), daemon=True).start()
    while os.read(0, 1024):
        pass
    _end(child, signal.SIGKILL)


def _follow(child: subprocess.Popen[bytes]) -> None:
    _end(child, child.wait())


def _end(child: subprocess.Popen[bytes], code: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    os._exit(abs(code))


if __name__ == "__main__":
    main()
