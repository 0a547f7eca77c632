"""What every registered backend must do, isolated or not, and that honest programs run as they should."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from envgym.errors import UserError
from envgym.sandbox.interface import Backend, Limits, Sandbox, Status
from envgym.sandbox.selection import sandboxes, select_backend


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap", "unsafe_local"])
async def any_sandbox(request: pytest.FixtureRequest, limits: Limits) -> AsyncIterator[Sandbox]:
    name = request.param
    if name == "unsafe_local":
        backend: Backend = sandboxes.load(name)()
    else:
        backend = request.getfixturevalue(f"{name}_backend")
    async with await backend.open(limits) as opened:
        yield opened
    if name == "unsafe_local":
        await backend.close()


def test_every_shipped_backend_is_covered_here() -> None:
    shipped = {plugin.name for plugin in sandboxes.plugins().values()}
    assert shipped == {"docker", "bubblewrap", "unsafe_local"}


async def test_statuses(any_sandbox: Sandbox) -> None:
    run = any_sandbox.run_python
    assert (await run("print(1)")).status is Status.OK
    assert (await run("raise SystemExit(3)")).exit_code == 3
    assert (await run("1/0")).status is Status.NONZERO
    assert (await run("import os; os.kill(os.getpid(), 15)")).signal == 15
    assert (await run("while True: pass", wall_seconds=0.5)).status is Status.TIMEOUT
    assert (await run("print('x' * 10**6)")).status is Status.OUTPUT_LIMIT


async def test_streams_stdin_and_files(any_sandbox: Sandbox) -> None:
    code = "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr)"
    result = await any_sandbox.run_python(code, stdin=b"in")
    assert (result.stdout, result.stderr) == (b"IN\n", b"e\n")
    await any_sandbox.write({"module.py": b"answer = 42", "data/x": b"\0\1"})
    result = await any_sandbox.run_python("import module; print(module.answer); open('out', 'w').write('o')")
    assert result.text == "42\n", result
    assert await any_sandbox.read("out") == b"o"
    assert await any_sandbox.read("data/x") == b"\0\1"
    with pytest.raises(FileNotFoundError):
        await any_sandbox.read("none")
    with pytest.raises(ValueError, match="file name"):
        await any_sandbox.write({"../up": b""})


async def test_commands(any_sandbox: Sandbox) -> None:
    result = await any_sandbox.exec(["/bin/sh", "-c", "read word; echo got $word; exit 4"], stdin=b"it\n")
    assert (result.status, result.exit_code, result.stdout) == (Status.NONZERO, 4, b"got it\n")
    missing = await any_sandbox.exec(["no-such-command"])
    assert (missing.exit_code, b"No such file" in missing.stderr) == (127, True)


async def test_a_program_sees_a_fresh_main(any_sandbox: Sandbox) -> None:
    code = """
import sys
print(__name__, sys.argv, __file__ if "__file__" in globals() else None, sorted(globals())[:2])
print([name for name in sys.modules if "envgym" in name], sys.modules["__main__"].__dict__ is globals())
"""
    result = await any_sandbox.run_python(code)
    assert result.text.splitlines()[0].startswith("__main__ [''] None ['__builtins__'")
    assert result.text.splitlines()[1] == "[] True"
    assert (await any_sandbox.run_python("x = 1")).status is Status.OK
    assert "NameError" in (await any_sandbox.run_python("print(x)")).error_text


async def test_a_program_ends_as_cpython_ends_it(any_sandbox: Sandbox) -> None:
    code = """
import atexit, sys, threading, time
class Last:
    def __del__(self): print("deleted")
last = Last()
atexit.register(print, "atexit")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
sys.exit("said")
"""
    result = await any_sandbox.run_python(code)
    assert (result.exit_code, result.text, result.error_text) == (1, "thread\natexit\ndeleted\n", "said\n")


async def test_a_traceback_shows_the_programs_lines_and_no_others(any_sandbox: Sandbox) -> None:
    result = await any_sandbox.run_python("def f():\n    raise ValueError('x')\nf()\n")
    assert result.error_text.splitlines()[:4] == [
        "Traceback (most recent call last):",
        '  File "main.py", line 3, in <module>',
        "    f()",
        '  File "main.py", line 2, in f',
    ] or result.error_text.splitlines()[3:5] == ["    ^^^", '  File "main.py", line 2, in f']
    assert result.error_text.endswith("ValueError: x\n")
    assert "runner" not in result.error_text


CONTROLS = {
    "pool": "from multiprocessing import Pool\nwith Pool(2) as pool: print(sum(pool.map(abs, [-1, 2])))",
    "numpy": "import numpy; print(int(numpy.arange(3).sum()))",
    "tempfile": "import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'abc'))",
    "threads": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool: print(sum(pool.map(int, '012')))
""",
    "subprocess": """
import subprocess, sys
print(subprocess.run([sys.executable, '-c', 'print(3)'], capture_output=True, text=True).stdout.strip())
""",
    "20 MB": "x = bytearray(b'x' * (20 * 2**20)); print(len(x) // (20 * 2**20) * 3)",
    "localhost": """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].send(b"3")).start()
print(socket.create_connection(server.getsockname()).recv(1).decode())
""",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0.01); return 3\nprint(asyncio.run(f()))",
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
