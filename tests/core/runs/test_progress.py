"""Progress goes to standard error, plain where there is no terminal, and its estimate is right."""

from __future__ import annotations

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
    reporter = Reporter(live=False)
    reporter.begin("step", 100, done=90)
    clock[0] += 10
    reporter.advance()
    assert reporter.eta() == 90


def test_no_more_time_is_told_than_the_phase_has(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(live=False)
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


def test_no_colour_means_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert Reporter()._live is False
    monkeypatch.delenv("NO_COLOR")
    assert Reporter()._live is True
