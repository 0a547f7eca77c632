"""The sandbox benchmark times whatever rival is installed, and says which are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sandbox.py"


@pytest.mark.docker
@pytest.mark.skipif(
    subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0
    and os.environ.get("ENVGYM_REQUIRE_DOCKER") != "1",
    reason="no Docker daemon answers",
)
@pytest.mark.parametrize(("path", "timed"), [(os.environ["PATH"], True), ("", False)])
def test_rivals_are_timed_where_they_are_installed(path: str, timed: bool) -> None:
    command = [sys.executable, str(BENCHMARK), "--rounds", "10", "--json"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PATH": path}, check=True)
    figures = json.loads(done.stdout)
    assert figures["warm_p50_ms"] > 0
    for rival in ("docker_exec_p50_ms", "docker_run_p50_ms"):
        assert (figures[rival] is not None and figures[rival] > 0) is timed
