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


COMMANDS = {
    "python": (["python3", "-c", "import sys; print(sys.version_info >= (3, 11))"], "True\n"),
    "python by name": (["sh", "-c", "command -v python3 > /dev/null && python3 -c 'print(6 * 7)'"], "42\n"),
    "a pipeline": (["sh", "-c", "printf 'b\\na\\nb\\n' | sort | uniq -c | tr -s ' ' | head -n 1"], " 1 a\n"),
    "files": (["sh", "-c", "mkdir -p d/e && echo text > d/e/f && cp -r d g && ls g/e && cat g/e/f"], "f\ntext\n"),
    "checksums": (["sh", "-c", "printf abc | sha256sum | cut -c 1-8"], "ba7816bf\n"),
    "a search": (["sh", "-c", "echo needle > hay && find . -name hay | xargs grep -l needle"], "./hay\n"),
    "an edit": (["sh", "-c", "echo one two | sed s/one/three/ | awk '{print $1}'"], "three\n"),
    "an environment": (["env", "-i", "A=b", "/usr/bin/env"], "A=b\n"),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_shell_has_its_tools(name: str, any_sandbox: Sandbox) -> None:
    command, expected = COMMANDS[name]
    result = await any_sandbox.exec(command)
    assert (result.status, result.text) == (Status.OK, expected), result


async def test_tools_carry_no_rights(sandbox: Sandbox) -> None:
    """What the machine's own tools may not do here either: other users, other roots, other hosts."""
    for command in ("chroot / true", "mknod d b 8 0", "chown 0 /work", "su -c true", "mount -t tmpfs x /tmp"):
        result = await sandbox.exec(["sh", "-c", command])
        assert result.status is Status.NONZERO, (command, result)


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
