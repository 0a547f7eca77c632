"""Every registered backend keeps the contract of its kind; the shipped ones promise a little more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

import pytest

from envgym.errors import UserError
from envgym.sandbox.interface import Backend, Limits, Sandbox, Status
from envgym.sandbox.selection import sandboxes, select_backend
from envgym.testing import IsolatedSandboxContract, SandboxContract

Shared = Callable[[str], Backend]
MARKS = {"docker": [pytest.mark.docker]}
BACKENDS = {name: pytest.param(name, marks=MARKS.get(name, [])) for name in sandboxes.plugins()}


def isolating(wanted: bool) -> list[object]:
    return [param for name, param in BACKENDS.items() if sandboxes.load(name).isolated is wanted]


class TestEveryIsolatingBackend(IsolatedSandboxContract):
    @pytest.fixture(scope="class", params=isolating(True))
    @classmethod
    def opened(cls, request: pytest.FixtureRequest, shared_backend: Shared) -> Backend:
        return shared_backend(request.param)


class TestEveryOtherBackend(SandboxContract):
    @pytest.fixture(scope="class", params=isolating(False))
    @classmethod
    def opened(cls, request: pytest.FixtureRequest, shared_backend: Shared) -> Backend:
        return shared_backend(request.param)


@pytest.fixture(params=BACKENDS.values())
async def any_sandbox(
    request: pytest.FixtureRequest, shared_backend: Shared, limits: Limits
) -> AsyncIterator[Sandbox]:
    async with await shared_backend(request.param).open(limits) as opened:
        yield opened


async def test_a_program_sees_a_fresh_main(any_sandbox: Sandbox) -> None:
    code = """
import sys
print(__name__, sys.argv == [__file__], open(__file__).read().split()[0], sorted(globals())[:2])
print([name for name in sys.modules if "envgym" in name], sys.modules["__main__"].__dict__ is globals())
"""
    result = await any_sandbox.run_python(code)
    assert result.text.splitlines()[0].startswith("__main__ True import ['__builtins__'")
    assert result.text.splitlines()[1] == "[] True"
    assert (await any_sandbox.run_python("x = 1")).status is Status.OK
    assert "NameError" in (await any_sandbox.run_python("print(x)")).error_text


async def test_a_traceback_shows_the_programs_lines_and_no_others(any_sandbox: Sandbox) -> None:
    result = await any_sandbox.run_python("def f():\n    raise ValueError('x')\nf()\n")
    first, *lines = [line for line in result.error_text.splitlines() if not set(line) <= set(" ~^")]
    assert first == "Traceback (most recent call last):"
    assert re.fullmatch(r'  File "/.*/main.py", line 3, in <module>', lines[0])
    assert lines[1] == "    f()"
    assert re.fullmatch(r'  File "/.*/main.py", line 2, in f', lines[2])
    assert result.error_text.endswith("ValueError: x\n")
    assert "runner" not in result.error_text


CONTROLS = {
    "numpy": "import numpy; print(int(numpy.arange(3).sum()))",
    "localhost": """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].send(b"3")).start()
print(socket.create_connection(server.getsockname()).recv(1).decode())
""",
}


@pytest.mark.parametrize("name", sorted(CONTROLS))
async def test_honest_programs_are_not_in_the_way(name: str, any_sandbox: Sandbox) -> None:
    result = await any_sandbox.run_python(CONTROLS[name])
    assert (result.status, result.text) == (Status.OK, "3\n"), result


def test_auto_takes_the_first_isolated_backend_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    docker, bubblewrap = sandboxes.load("docker"), sandboxes.load("bubblewrap")
    monkeypatch.setattr(docker, "unavailable", classmethod(lambda cls: "no daemon; start one"))
    monkeypatch.setattr(bubblewrap, "unavailable", classmethod(lambda cls: None))
    assert type(select_backend("auto")) is bubblewrap
    monkeypatch.setattr(bubblewrap, "unavailable", classmethod(lambda cls: "not installed"))
    with pytest.raises(UserError, match="docker: no daemon; start one; bubblewrap: not installed"):
        select_backend("auto")


def test_unsafe_local_only_by_name() -> None:
    backend = select_backend("unsafe_local")
    assert not backend.isolated
    with pytest.raises(UserError, match="allowed: "):
        select_backend("unsafe")
