"""A report is made of whatever is left of a run; what cannot be read is said, skipped and counted."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from damage import damaged_copy

from envgym.cli import main

ROUNDS = 50


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a control, as the trainer wrote it."""
    place = tmp_path_factory.mktemp("whole")
    values = {
        "mix": [{"env": "toys:Letter"}],
        "model": {"path": str(model_folder), "context": 32},
        "sampling": {"max_tokens": 1},
        "evaluate": {"tasks": 2},
        "groups": 1,
        "group_size": 2,
        "steps": 3,
        "threads": 1,
        "objective": {"name": "grpo"},
    }
    (place / "recipe.toml").write_text(tomli_w.dumps(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["envgym", "train", str(place / "recipe.toml"), "--out", str(place / "run"),
                                    "--controls", "random"])  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return place / "run"


@pytest.fixture(scope="module")
def light(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without checkpoints and the folder of the control's own run."""
    place = tmp_path_factory.mktemp("light") / "run"
    shutil.copytree(whole, place)
    for folder in [*place.rglob("checkpoints"), *place.glob("controls/*/")]:
        if folder.is_dir():
            shutil.rmtree(folder)
    return place


@pytest.mark.parametrize("seed", range(40))
def test_a_report_of_a_damaged_run_says_what_it_left_out(
    seed: int,
    light: Path,
    tmp_path: Path,
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    told = 0
    for number in range(ROUNDS):
        rng = random.Random(f"{seed} {number}")
        run = damaged_copy(light, tmp_path / "run", rng)
        code = cli("report", run)
        streams = capsys.readouterr()
        assert "Traceback" not in streams.err, (seed, number, streams.err[-2000:])
        assert code in (0, 2), (seed, number)
        if code == 0:
            page = (run / "report.html").read_text(encoding="utf-8")
            warnings = [line for line in streams.err.splitlines() if line.startswith("warning: ")]
            assert ("What could not be read" in page) == bool(warnings), (seed, number)
            told += bool(warnings)
        else:
            assert streams.err.startswith("error: "), (seed, number, streams.err)
    assert told > ROUNDS / 5


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "metrics.jsonl",
            b'null\n{"step": 1, "sampled_tokens": 2}\n',
            "1 row of metrics.jsonl was skipped, row 1",
        ),
        ("versions.json", b"[" * 9999, ""),
        ("evaluations/before.json", b"null", "holds null in the place of an object"),
        (
            "evaluations/before.json",
            b'{"decodings": {"greedy": {"Letter": {"tokens": "x"}}}}',
            "delete it to measure",
        ),
        (
            "evaluations/before.json",
            b'{"decodings": {}}',
            "scores of other environments than the recipe; delete it",
        ),
        ("controls/requested.json", b'{"controls": [1]}', "requested.json: cannot be read (controls.0: "),
        ("recipe.toml", b"a = " + b"[" * 9999, "nests more than 32 levels deep"),
    ],
)
def test_a_damaged_run_is_resumed_or_refused_in_words(
    whole: Path,
    tmp_path: Path,
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes,
    words: str,
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(content)
    code = cli("train", "--resume", tmp_path / "run")
    told = capsys.readouterr().err
    assert code in (0, 2)
    assert "Traceback" not in told
    assert words in told
