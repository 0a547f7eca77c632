"""Progress goes to standard error, plain where there is no terminal, and its estimate is right."""

from __future__ import annotations

import re
import threading

import pytest

from envgym.runs.progress import Reporter, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, to set."""
    now = [100.0]
    monkeypatch.setattr("envgym.runs.progress.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.5, "1:00"), (3599.6, "1:00:00"), (36_061, "10:01:01")]
)
def test_durations_by_hand(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_come_every_few_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter(live=False) as reporter:
        reporter.begin("play", 10)
        for _ in range(10):
            clock[0] += 2
            reporter.advance("reward 0.50")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.splitlines() == [
        "play 3/10 | reward 0.50 | ETA 0:14",
        "play 6/10 | reward 0.50 | ETA 0:08",
        "play 9/10 | reward 0.50 | ETA 0:02",
        "play 10/10 | reward 0.50 | ETA 0:00",
    ]


def test_a_resumed_phase_estimates_from_what_it_did_itself(clock: list[float]) -> None:
    with Reporter(live=False) as reporter:
        reporter.begin("step", 100, done=90)
        clock[0] += 10
        reporter.advance()
        assert reporter.eta() == 90


def test_no_more_time_is_told_than_the_phase_has(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(live=False) as reporter:
        reporter.begin("step", 1_000_000)
        for limit in (30.0, 1e9):
            clock[0] += 10
            reporter.advance(line=True, limit=limit)
    assert [line.rpartition("ETA ")[2] for line in capsys.readouterr().err.splitlines()] == ["0:30", "2777:46:20"]


def test_every_line_may_be_asked_for_and_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as reporter:
        reporter.say("[bold]run[/bold] [/]")
        reporter.begin("step", 2)
        reporter.advance("[red]x", line=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[bold]run[/bold] [/]"
    assert lines[1].startswith("step 1/2 | [red]x | ETA")


def test_a_bar_is_drawn_where_asked_for_and_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(live=True) as reporter:
        reporter.begin("play", 2)
        reporter.advance()
        reporter.say("between")
        reporter.begin("again", 1)
        reporter.advance("done", line=True)
    assert "between" in capsys.readouterr().err


def test_no_colour_leaves_the_bar_and_a_terminal_that_cannot_draw_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Reporter()._live is True
    monkeypatch.setenv("NO_COLOR", "1")
    assert Reporter()._live is True
    monkeypatch.setenv("TERM", "dumb")
    assert Reporter()._live is False


def test_long_work_within_a_unit_says_now_and_then_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("envgym.runs.progress._TICK_SECONDS", 0.01)
    monkeypatch.setattr("envgym.runs.progress._ALIVE_SECONDS", 0.05)
    asked: list[int] = []
    enough = threading.Event()

    def status() -> str:
        asked.append(1)
        if len(asked) > 12:
            enough.set()
        return f"{len(asked)} episodes"

    with Reporter(live=False) as reporter:
        reporter.begin("step", 3)
        with reporter.during(status):
            assert enough.wait(30)
        told = len(asked)
        reporter.advance("done", line=True)
    *alive, last = capsys.readouterr().err.splitlines()
    assert alive
    assert all(re.fullmatch(r"step 0/3 \| \d+ episodes \| 0:0\d so far", line) for line in alive), alive
    assert last.startswith("step 1/3 | done | ETA")
    assert len(asked) <= told + 1


def test_a_phase_that_ends_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("envgym.runs.progress._TICK_SECONDS", 0.001)
    monkeypatch.setattr("envgym.runs.progress._ALIVE_SECONDS", 0.0)
    before = set(threading.enumerate())
    with Reporter(live=False) as reporter:
        reporter.begin("play", 1)
        assert set(threading.enumerate()) - before
    capsys.readouterr()
    assert set(threading.enumerate()) <= before
