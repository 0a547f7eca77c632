"""Two processes learn what one learns, and either goes on from the other's checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import ranks_at_work
import torch
from ranks_at_work import CASES, SAVED, STEPS, learn

from envgym.cli.launcher import launch
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.manifest import fault_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # peft asks the old way

_TOLERANCE = {"bfloat16": 8e-3}
"""A bfloat16 number near 1 is 1/256 from the next."""


def test_two_processes_learn_what_one_learns(
    make_language_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten steps of each case the parameters differ by at most 1e-5, whether the run has one process, two, or
    a checkpoint of the one half-way from which the other goes on. Losses, norms and counts are equal, too."""
    language_model: LanguageModel = make_language_model()
    language_model.save(tmp_path / "model")
    for case in CASES:
        learn(case, tmp_path / "model", tmp_path / "one" / case)
    script = Path(ranks_at_work.__file__)
    assert launch(2, [sys.executable, str(script), str(tmp_path)]) == 0
    for case in CASES:
        checkpoint = tmp_path / "two" / case / f"step-{SAVED:06d}"
        assert fault_of(checkpoint) == ""
        learn(case, tmp_path / "model", tmp_path / "two-one" / case, resume=checkpoint)
        one = _found(tmp_path / "one" / case)
        for other in ("two", "one-two", "two-one"):
            found = _found(tmp_path / other / case)
            for name, weight in one["weights"].items():
                gap = float((weight.float() - found["weights"][name].float()).abs().max())
                assert gap <= _TOLERANCE.get(case, 1e-5), (case, other, name, gap)
            for expected, row in zip(one["rows"][STEPS - len(found["rows"]) :], found["rows"], strict=True):
                assert row == pytest.approx(expected, rel=1e-2, abs=1e-3), (case, other)
        assert all(row["grad_norm"] > 0 for row in one["rows"])


def _found(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return found
