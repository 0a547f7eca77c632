"""The sandbox benchmark times every rival that is installed and says which are not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sandbox.py"


def _daemon_answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@pytest.mark.docker
def test_rivals_are_timed_where_they_are_installed() -> None:
    if os.environ.get("ENVGYM_REQUIRE_DOCKER") != "1" and not _daemon_answers():
        pytest.skip("no Docker daemon answers")
    command = [sys.executable, str(BENCHMARK), "--rounds", "10", "--json"]
    figures = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    times = {name: figures[name] for name in figures if name.endswith("_ms")}
    if importlib.util.find_spec("llm_sandbox") is None:
        assert times.pop("llm_sandbox_p50_ms") is None
    assert {"warm_p50_ms", "docker_exec_p50_ms", "docker_run_p50_ms"} <= times.keys()
    assert all(value > 0 for value in times.values())
