"""Whatever a model, a data set or a plugin writes, a terminal is shown text and is never told what to do."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import CONTROLS
from hypothesis import given
from hypothesis import strategies as st

from envgym.records import Trajectory, from_json
from envgym.terminal import guarded_streams, printable

OWN = ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\x1b[0m")
"""What the bar of progress writes; colours aside."""


@given(text=st.text())
def test_what_is_printable_moves_no_cursor_and_hides_nothing(text: str) -> None:
    made = printable(text)
    assert all(c.isprintable() or c.isspace() for c in made)
    assert not set(made) & set("\x1b\x9b\x00\x07\x08\r\x0b\x0c\x7f\x85\u2028\u202e\u200b\ufeff")
    assert printable(made) == made
    made.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc é 漢字 \u3000\u00a0 🙂", None),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("12\r34\x9b", r"12\r34\x9b"),
        ("abc\u202edef\u2069\u200d\u00ad", r"abc\u202edef\u2069\u200d\xad"),
        ("\ud83d x \udcff", r"\ud83d x \udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_escapes_by_hand(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


def at_a_terminal(*arguments: str) -> str:
    """Run the command with a terminal as its streams, and return everything that it was sent."""
    ours, theirs = pty.openpty()
    path = os.pathsep.join([str(Path(__file__).parent / "plugins"), *sys.path])
    program = "from envgym.cli import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": path, "TERM": "xterm-256color", "COLUMNS": "300"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = bytearray()
    while True:
        try:
            piece = os.read(ours, 2**16)
        except OSError:  # no process has the other end any more
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    assert running.wait(timeout=30) in (0, 1, 2), sent.decode("utf-8", "replace")
    return sent.decode("utf-8").replace("\r\n", "\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rollout", "hostile:Canvas", "--policy", "hostile:Painter"),
        ("rollout", "hostile:Canvas", "--policy", "hostile:Painter", "--json"),
        ("rollout", "hostile:Canvas", "--policy", "hostile:Painter", "--set", "trouble=respond"),
        ("rollout", "hostile:Canvas", "--policy", "hostile:Painter", "--set", "trouble=tasks"),
        ("rollout", "hostile:Canvas", "--policy", "hostile:Painter", "--set", "trouble=bug"),
        ("check", "hostile:Canvas"),
        ("show", "hostile:Canvas"),
        ("rollout", f"no-such{CONTROLS.replace(chr(0), '')}"),
        ("rollout", "hostile:Canvas", f"--{CONTROLS.replace(chr(0), '')}"),
        ("rollout", "hostile:Canvas", "--set", CONTROLS.replace(chr(0), "")),
    ],
)
def test_no_control_reaches_the_terminal(arguments: tuple[str, ...]) -> None:
    sent = at_a_terminal(*arguments)
    assert sent == printable(sent)
    assert r"\x1b" in sent or r"\u001b" in sent


def test_beside_the_bar_of_progress_no_control_but_its_own(tmp_path: Path) -> None:
    sent = at_a_terminal("eval", "--env", "hostile:Canvas", "--policy", "hostile:Painter", "--limit", "2")
    for control in OWN:
        sent = sent.replace(control, "")
    for words in ("printed", "said", "warned"):
        assert words in sent
    for control in ("\x1b[2J", "\x1b]", "\x9b", "\x90", "\x9d", "\x07", "\x08", "\u202e", "\u200b", "\u2028"):
        assert control not in sent, (control, sent)
    assert "[red]:bug:" in sent


def test_json_for_programs_holds_the_controls_themselves() -> None:
    """They are escaped as JSON escapes them."""
    sent = at_a_terminal("rollout", "hostile:Canvas", "--policy", "hostile:Painter", "--json")
    played = from_json(Trajectory, next(line for line in sent.splitlines() if line.startswith("{")))
    assert played.turns[0].action.content == f"I say {CONTROLS}"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_that_lacks_a_character_is_sent_its_escape(encoding: str) -> None:
    written = io.BytesIO()
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(written, encoding=encoding)),
        guarded_streams(),
    ):
        print("a 漢 \ud800", flush=True)
        assert written.getvalue() == rb"a \u6f22 \ud800" + b"\n"
