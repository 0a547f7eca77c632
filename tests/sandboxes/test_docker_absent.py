"""A machine without a Docker daemon: said at once, and nothing is leaked."""

from __future__ import annotations

import gc
import socket
import warnings
from pathlib import Path

import pytest

from envgym_sandboxes.docker import DockerBackend


@pytest.mark.parametrize("there", [True, False], ids=["stale", "absent"])
def test_a_daemon_that_is_not_there_is_told_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A socket file that nobody listens to is left behind by a daemon that was killed."""
    path = tmp_path / "docker.sock"
    if there:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        reason = DockerBackend.unavailable()
        gc.collect()
    assert reason is not None
    assert reason.startswith("no Docker daemon answers")
    assert seen == []
