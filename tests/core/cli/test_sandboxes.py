"""``envgym sandbox``: what it tells is read from inside, and mistakes are told before anything starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commands import Run

from envgym.errors import UserError
from envgym.sandbox.interface import Backend
from envgym.sandbox.selection import sandboxes, select_backend


@pytest.fixture
def docker(usable_backend: Callable[[str], type[Backend]]) -> None:
    usable_backend("docker")


@pytest.mark.docker
@pytest.mark.usefixtures("docker")
def test_doctor_tells_what_holds_inside(run: Run) -> None:
    result = run("sandbox", "doctor", "--json")
    assert result.code == 0
    docker, unsafe = result.data["docker"], result.data["unsafe_local"]
    assert (docker["works"], docker["isolated"], unsafe["isolated"]) == (True, True, False)
    inside = docker["inside"]
    assert inside["root"] == "read-only"
    assert inside["network"] == ["lo"]
    assert int(inside["capabilities"], 16) == 0
    assert set(inside["writable folders"]) == {"/work", "/tmp", "/dev/shm"}
    text = run("sandbox", "doctor").out
    assert "docker: works (isolated)" in text
    assert "unsafe_local: works (NOT isolated, only by name)" in text


def test_doctor_says_why_not_and_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("docker", "bubblewrap"):
        kind = sandboxes.load(name)
        monkeypatch.setattr(kind, "unavailable", classmethod(lambda kind: "it is resting; wake it"))
    result = run("sandbox", "doctor")
    assert result.code == 1
    assert "docker: does not work here (isolated)\n  it is resting; wake it" in result.out


@pytest.mark.docker
@pytest.mark.usefixtures("docker")
def test_build_names_the_image_and_finds_it_again(run: Run) -> None:
    first, second = run("sandbox", "build"), run("sandbox", "build", "docker")
    assert first.code == second.code == 0
    assert first.out == second.out
    assert first.out.startswith("envgym-sandbox:py")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("build", "docker", "--set", "package=[]"), "did you mean 'packages'"),
        (("build", "docker", "--set", "packages=['no-such-thing']"), "'no-such-thing' cannot go into the sandbox"),
        (("build", "docker", "--set", "capacity=many"), "capacity: Input should be a valid integer"),
        (("build", "docker", "--set", "image=python:3"), "is not pinned"),
        (("build", "dcoker"), "did you mean 'docker'"),
        (("bench", "auto", "--set", "reuse=false"), "'auto' has no settings"),
    ],
)
@pytest.mark.docker
@pytest.mark.usefixtures("docker")
def test_mistakes_are_told_in_a_line(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run("sandbox", *arguments)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert result.err.count("\n") == 1


def test_clean_names_every_backend_that_works(run: Run) -> None:
    result = run("sandbox", "clean")
    assert result.code == 0
    assert "unsafe_local: 0 removed\n" in result.out


OURS = {
    "cold_start_ms",
    "warm_p50_ms",
    "warm_p99_ms",
    "bare_python_p50_ms",
    "reset_ms",
    "executions_per_s",
}


def test_bench_prints_every_figure(run: Run) -> None:
    result = run("sandbox", "bench", "unsafe_local", "--rounds", "10", "--workers", "2", "--json")
    assert result.code == 0
    assert set(result.data) == OURS
    assert all(value > 0 for value in result.data.values())
    assert "warm_p50_ms" in run("sandbox", "bench", "unsafe_local", "--rounds", "10").out


def test_a_backends_settings_are_its_constructors() -> None:
    assert type(select_backend("unsafe_local", {})).__name__ == "UnsafeLocalBackend"
    with pytest.raises(UserError, match=r"sandbox 'unsafe_local': unknown key 'runtime'"):
        select_backend("unsafe_local", {"runtime": "runsc"})
