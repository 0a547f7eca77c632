"""Library use without a trainer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HEAVY = ("torch", "transformers", "docker", "envgym_trainers", "envgym_sandboxes")


def test_it_runs_and_imports_no_model_library() -> None:
    program = (
        f"import runpy, sys; runpy.run_path({str(EXAMPLES / 'rollout_only.py')!r}, run_name='__main__')\n"
        f"assert not set({HEAVY!r}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, by_hand, at_random = done.stdout.splitlines()
    assert first.endswith("reward 1, terminated True, truncated False")
    assert by_hand.startswith("LastName: 0.")
    assert at_random.startswith("RandomPolicy: 0.000")
