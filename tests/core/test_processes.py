"""The place of a process: what torchrun sets is read, and what cannot be is refused with a remedy."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from envgym.cli import main
from envgym.cli.launcher import launch
from envgym.errors import UserError
from envgym.runs.folder import RunFolder
from envgym.runs.processes import ProcessPlace, process_place
from envgym.runs.progress import Reporter
from envgym.runs.stage import Stage

_GOOD = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "host",
    "MASTER_PORT": "1",
}


def test_a_process_by_itself_needs_no_variables() -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert process_place({}) == process_place(alone) == ProcessPlace()


def test_torchruns_variables_are_read() -> None:
    assert process_place(_GOOD) == ProcessPlace(rank=3, size=4, local_rank=1, local_size=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": ""}, "lacks MASTER_PORT"),
        ({"LOCAL_RANK": ""}, "lacks LOCAL_RANK"),
        ({"RANK": "4"}, "contradicts itself"),
        ({"LOCAL_RANK": "2"}, "contradicts itself"),
        ({"LOCAL_WORLD_SIZE": "5"}, "contradicts itself"),
        ({"RANK": "0"}, "contradicts itself"),
        ({"WORLD_SIZE": "-1"}, "not numbers"),
        ({"WORLD_SIZE": "two"}, "not numbers"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_named(change: dict[str, str], message: str) -> None:
    remedy = "start the processes with torchrun or envgym train --processes"
    with pytest.raises(UserError, match=f"{message}.*{remedy}"):
        process_place({**_GOOD, **change})


def test_other_processes_than_those_that_were_started_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["envgym", "train", "recipe.toml", "--processes", "2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--processes 2, but 4 were started already" in capsys.readouterr().err


def test_a_stage_of_one_process_says_so() -> None:
    class Lonely(Stage):
        async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
            return None

    with pytest.raises(UserError, match="runs in one process: leave out torchrun and --processes"):
        Lonely().follow()


def test_a_launch_ends_as_its_first_process_does_and_leaves_none_behind() -> None:
    """The exit code is the first one's; if that is 0, a failure of another still counts."""
    by_rank = "import os, sys; sys.exit({'0': %d, '1': %d}[os.environ['RANK']])"
    for first, second, code in ((0, 0, 0), (2, 0, 2), (0, 3, 1), (2, 1, 2)):
        assert launch(2, [sys.executable, "-c", by_rank % (first, second)]) == code
