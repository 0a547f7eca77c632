"""What vLLM loads by itself, in an environment that has neither envgym's dependencies nor, here, vLLM."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import envgym_trainers
from envgym_trainers.engine.server import vllm_plugin
from envgym_trainers.engine.server.vllm import Vllm


def test_vllm_finds_the_plugin() -> None:
    points = metadata.entry_points(group="vllm.general_plugins")
    assert vllm_plugin.register in [point.load() for point in points]


def test_the_plugin_imports_nothing_that_vllms_environment_lacks() -> None:
    """No package but the standard library, and nothing of envgym's core."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(envgym_trainers.__path__[0]).parent)!r})\n"
        "import envgym_trainers.engine.server.vllm_plugin\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('envgym', 'torch', 'pydantic', 'httpx')])"
    )
    assert subprocess.check_output([sys.executable, "-I", "-S", "-c", program], text=True).strip() == "[]"


def test_the_flag_that_is_told_names_the_transfer_that_is_registered() -> None:
    assert f'{{"backend": "{vllm_plugin.BACKEND}"}}' in Vllm.start
