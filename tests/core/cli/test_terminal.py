"""The real command at a terminal: stopped, narrow, without colours, twice on one folder."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from terminals import Terminal

CTRL_C = "\x03"
SLOW = "stage = 'terminals:Slow'\n"
_COLOUR = re.compile(r"\x1b\[[0-9;]*[39][0-9]m")


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(SLOW)


def test_the_first_ctrl_c_says_what_happens_and_the_run_ends_after_the_step(tmp_path: Path) -> None:
    with Terminal("train", "slow.toml", "--out", "run", folder=tmp_path) as terminal:
        terminal.until("step 2/100000").press(CTRL_C)
        terminal.until(r"stopping: step \d+ is finished and saved first; Ctrl-C again stops at once")
        assert terminal.wait() == 130
    assert re.search(r"stopped after step \d+", terminal.text)
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("trouble", ["patient", "stubborn"])
def test_the_second_ctrl_c_ends_it_within_seconds_whatever_is_in_the_way(tmp_path: Path, trouble: str) -> None:
    words = ("train", "slow.toml", "--out", "my run", "--set", f"trouble={trouble}")
    with Terminal(*words, folder=tmp_path) as terminal:
        terminal.until("step 2/100000").press(CTRL_C).until("stopping: ").press(CTRL_C)
        assert terminal.wait() == 130
    said = terminal.text.partition("stopping: ")[2]
    assert "stopped; what was saved is intact; resume with: envgym train --resume 'my run'" in said
    assert "Traceback" not in said
    assert len([line for line in terminal.lines if "Error" in line]) == 0
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l"), "the cursor is back"
    assert (tmp_path / "my run" / "metrics.jsonl").read_text().endswith("\n")


def test_a_third_ctrl_c_does_not_wait_for_anything(tmp_path: Path) -> None:
    words = ("train", "slow.toml", "--out", "run", "--set", "trouble=stubborn")
    with Terminal(*words, folder=tmp_path) as terminal:
        terminal.until("step 2/100000").press(CTRL_C).until("stopping: ").press(CTRL_C).until("stopped; ")
        terminal.press(CTRL_C)
        assert terminal.wait() == 130
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_evaluation_is_stopped_by_one_signal(number: int) -> None:
    words = ("eval", "--env", "toys:Adder", "--policy", "gold", "--limit", "2", "--set", "trouble=say_and_hang")
    with Terminal(*words) as terminal:
        terminal.until("begun")
        os.kill(terminal.pid, number)
        assert terminal.wait() == 130
    assert "stopped" in terminal.text
    assert "Traceback" not in terminal.text


def test_a_folder_is_one_process_s(tmp_path: Path) -> None:
    with Terminal("train", "slow.toml", "--out", "run", folder=tmp_path) as first:
        first.until("step 2/100000")
        with Terminal("train", "--resume", "run", folder=tmp_path) as second:
            assert second.wait() == 2
        assert "another process works in run: wait for its end or stop it" in " ".join(second.text.split())
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with Terminal("train", "--resume", "run", folder=tmp_path) as third:
        third.until(r"step \d+/100000").press(CTRL_C).until("stopping")
        assert third.wait() == 130


@pytest.mark.parametrize("columns", [60, 80])
def test_nothing_is_wider_than_the_terminal(columns: int) -> None:
    words = ("eval", "--env", "toys:Adder,math_problems", "--policy", "random", "--limit", "6")
    with Terminal(*words, columns=columns) as terminal:
        assert terminal.wait() == 0
    assert "accuracy" in terminal.text
    assert max(map(len, terminal.lines)) <= columns


def test_without_colours_there_is_still_a_bar() -> None:
    words = ("eval", "--env", "toys:Adder", "--policy", "gold", "--limit", "2")
    for colours, env in ((True, {}), (False, {"NO_COLOR": "1"})):
        with Terminal(*words, **env) as terminal:
            assert terminal.wait() == 0
        assert "━" in terminal.text
        assert bool(_COLOUR.search(terminal.text)) is colours
