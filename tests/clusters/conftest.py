"""One Ray for all tests of a process, on loopback; each test connects its own workers to it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[1] / "core" / "plugins"
CORES = 8
HEAD = f"""
import asyncio, sys
from envgym_clusters.ray.session import RaySession
session = RaySession()
asyncio.run(session.open("", cores={CORES}))
import ray
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
asyncio.run(session.close())
"""


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a Ray of eight cores, however many the machine has; it knows the modules of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        paths = os.pathsep.join([str(PLUGINS), str(Path(__file__).parent), *filter(None, sys.path)])
        head = subprocess.Popen(
            [sys.executable, "-c", HEAD],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert head.stdout is not None
        assert head.stdin is not None
        yield head.stdout.readline().strip()
        head.stdin.close()
        assert head.wait(60) == 0
        head.stdout.close()
