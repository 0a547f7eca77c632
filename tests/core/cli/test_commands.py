"""Packages add commands; each is loaded when it is asked for, and a broken one harms no other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Run

MODULE = '''"""Commands of a package from outside."""

import typer

from envgym.errors import UserError

app = typer.Typer(help="Look after the greenhouse.", no_args_is_help=True)
LIMIT = 3


@app.command("water")
def water(litres: int = 1) -> None:
    """Water every bed."""
    print(f"{litres} l")


def grow(name: str, height: int = 2) -> None:
    """Grow one plant.

    It takes a while.
    """
    if height > LIMIT:
        raise UserError(f"{name} grows to {LIMIT} m at most")
    print(f"{name}: {height} m")
'''
POINTS = """[envgym.commands]
grow = greenhouse:grow
greenhouse = greenhouse:app
shed = no_such_package.shed:app
limit = greenhouse:LIMIT
list = greenhouse:grow
"""


@pytest.fixture(autouse=True)
def greenhouse(tmp_path: Path, install: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with two commands, two that cannot be used, and one whose name is taken."""
    (tmp_path / "greenhouse.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "greenhouse", raising=False)
    install("greenhouse", POINTS)


def test_an_added_function_is_a_command_with_its_options_and_exit_codes(run: Run) -> None:
    done = run("grow", "fern", "--height", "3")
    assert (done.code, done.out) == (0, "fern: 3 m\n")
    refused = run("grow", "fern", "--height", "4")
    assert (refused.code, refused.err) == (2, "error: fern grows to 3 m at most\n")
    assert run("grow").code == 2


def test_an_added_typer_is_a_group_even_of_one_command(run: Run) -> None:
    assert run("greenhouse", "water", "--litres", "5").out == "5 l\n"
    assert "Water every bed." in run("greenhouse", "--help").out


def test_the_help_of_envgym_lists_added_commands_last_and_says_which_cannot_be_used(run: Run) -> None:
    lines = [line.split(maxsplit=1) for line in run("--help").out.partition("Commands:\n")[2].splitlines()]
    listed = {line[0]: line[1] for line in lines if line}
    assert list(listed)[-5:] == ["greenhouse", "grow", "limit", "plan", "shed"]
    assert listed["grow"] == "Grow one plant."
    assert listed["greenhouse"] == "Look after the greenhouse."
    assert listed["shed"].startswith("Cannot be used")


def test_an_added_command_looks_like_one_of_envgyms_own(run: Run) -> None:
    added, own = (run(name, "-h").out for name in ("grow", "show"))
    assert [line.split()[:4] for line in (added.splitlines()[0], own.splitlines()[0])] == [
        ["Usage:", "envgym", name, "[OPTIONS]"] for name in ("grow", "show")
    ]
    assert "\n\n  Grow one plant.\n\n  It takes a while.\n\nArguments:\n" in added


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("shed", "'shed' (no_such_package.shed:app of greenhouse) needs the module 'no_such_package'"),
        ("limit", "greenhouse:LIMIT (greenhouse) is no command: it must be a function or a typer.Typer"),
    ],
)
def test_a_command_that_cannot_be_used_says_why_whatever_it_is_given(run: Run, name: str, reason: str) -> None:
    done = run(name, "--loud", "value")
    assert (done.code, done.out) == (2, "")
    assert reason in done.err


def test_a_command_that_two_packages_add_is_refused_with_both_names(
    run: Run, install: Callable[[str, str], None]
) -> None:
    install("nursery", "[envgym.commands]\ngrow = nursery:grow\n")
    done = run("grow", "fern")
    assert done.code == 2
    assert "command 'grow' is offered twice" in done.err
    assert "nursery" in done.err


def test_a_name_of_envgyms_own_cannot_be_taken(run: Run) -> None:
    assert "math_problems-v1" in run("list").out


def test_nothing_is_imported_for_the_sake_of_another_command(run: Run) -> None:
    run("list")
    assert "greenhouse" not in sys.modules
