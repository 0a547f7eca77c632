"""A model server that nobody here wrote, started and ended as a process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx

__all__ = ["running_server"]

_START_SECONDS = 120.0
_END_SECONDS = 30.0
_SHOWN = 2_000


@contextlib.contextmanager
def running_server(
    command: Callable[[str], Sequence[str]], *, ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server while the context lasts, and give its base address.

    Args:
        command: makes the command from the port to listen at.
        ready: path that answers with 200 once the server does.
        environment: variables beside this process's own.

    Raises:
        SystemExit: it does not answer in time, or ended; with the end of what it printed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        variables = {**os.environ, **(environment or {})}
        server = subprocess.Popen(command(port), stdout=log, stderr=log, env=variables)
        try:
            if not _answers(address + ready, server):
                log.seek(max(0, log.seek(0, os.SEEK_END) - _SHOWN))
                said = log.read().decode(errors="replace")
                raise SystemExit(f"the server does not answer at {address}{ready}:\n{said}")
            yield address
        finally:
            server.terminate()
            server.wait(_END_SECONDS)


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return True
        time.sleep(0.2)
    return False
