"""Run a command, and end it with everything that it started when the process that started this one is gone.

    python leash.py COMMAND … >> FILE

A process that dies by SIGKILL cannot end what it started; this one's standard input closes nonetheless, and it
gets another parent. Of what the command says, FILE gets the last megabytes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading

_KEPT_BYTES = 2**20
_LOOK_SECONDS = 0.5
_LAST_WORDS_SECONDS = 1.0


def main() -> None:
    """Run the command until it ends, or whoever started this does."""
    owner = os.getppid()
    child = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    listening = threading.Thread(target=_listen, args=(child,), daemon=True)
    listening.start()
    threading.Thread(target=_follow, args=(child, listening), daemon=True).start()
    # The pipe alone would not do: a process that the owner forked may hold its other end.
    while os.getppid() == owner:
        if select.select([0], [], [], _LOOK_SECONDS)[0] and not os.read(0, 1024):
            break
    _kill(child)
    os._exit(signal.SIGKILL)


def _listen(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    while said := os.read(child.stdout.fileno(), 65536):
        if os.fstat(1).st_size > _KEPT_BYTES:
            os.ftruncate(1, 0)
        os.write(1, said)


def _follow(child: subprocess.Popen[bytes], listening: threading.Thread) -> None:
    code = child.wait()
    _kill(child)
    listening.join(_LAST_WORDS_SECONDS)
    os._exit(abs(code))


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
