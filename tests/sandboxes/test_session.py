"""The Python session: state from cell to cell, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox, Status
from envgym.sandbox.selection import sandboxes


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap", "unsafe_local"])
async def sandbox(request: pytest.FixtureRequest, limits: Limits) -> AsyncIterator[Sandbox]:
    """A fresh sandbox of every backend."""
    if request.param == "unsafe_local":
        backend: Backend = sandboxes.load("unsafe_local")()
    else:
        backend = request.getfixturevalue(f"{request.param}_backend")
    async with await backend.open(limits) as opened:
        yield opened


async def test_names_functions_and_open_files_survive(sandbox: Sandbox) -> None:
    first = await sandbox.run_cell("import math\nx = 20\ndef f(n): return n + x\nfile = open('log', 'w')\n2 * x")
    assert (first.status, first.text, first.error_text) == (Status.OK, "40\n", "")
    assert (await sandbox.run_cell("x += 1")).text == ""
    second = await sandbox.run_cell("print(f(1), math.pi > 3)\n_ = file.write('kept')\nfile.close()")
    assert second.text == "22 True\n"
    assert await sandbox.read("log") == b"kept"
    await sandbox.write({"data": b"7"})
    assert (await sandbox.run_cell("open('data').read() + str(x)")).text == "'721'\n"


async def test_a_cell_that_raises_is_told_and_the_session_goes_on(sandbox: Sandbox) -> None:
    await sandbox.run_cell("x = 1")
    result = await sandbox.run_cell("def f():\n    return 1 / 0\nf()")
    assert (result.status, result.exit_code) == (Status.NONZERO, 1)
    assert result.error_text.rstrip().endswith("ZeroDivisionError: division by zero")
    assert 'File "cell 2", line 2, in f\n    return 1 / 0' in result.error_text
    assert "envgym" not in result.error_text
    broken = await sandbox.run_cell("def f(:\n")
    assert broken.status is Status.NONZERO
    assert "SyntaxError" in broken.error_text
    assert (await sandbox.run_cell("x")).text == "1\n"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("import sys; sys.exit(3)", Status.NONZERO, 3),
        ("import os; os._exit(0)", Status.OK, 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Status.SIGNAL, None),
        ("while True: pass", Status.TIMEOUT, None),
        ("print('y' * 10_000_000)", Status.OUTPUT_LIMIT, None),
    ],
)
async def test_what_ends_the_session_starts_a_new_one(
    sandbox: Sandbox, code: str, status: Status, exit_code: int | None
) -> None:
    await sandbox.run_cell("x = 1")
    started = time.monotonic()
    result = await sandbox.run_cell(code, wall_seconds=1.0)
    assert time.monotonic() - started < 4.0
    assert result.status is status
    if exit_code is not None:
        assert result.exit_code == exit_code
    again = await sandbox.run_cell("print('x' in globals())")
    assert (again.status, again.text) == (Status.OK, "False\n")


async def test_a_program_ends_the_session(sandbox: Sandbox) -> None:
    await sandbox.run_cell("x = 1\nimport threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()")
    assert (await sandbox.run_python("print('x' in globals())")).text == "False\n"
    assert (await sandbox.run_cell("'x' in globals()")).text == "False\n"


async def test_a_large_cell_and_large_output_pass(sandbox: Sandbox) -> None:
    """More than pipes hold, both ways."""
    result = await sandbox.run_cell(f"text = {'a' * 300_000!r}\nprint(text[:60_000])")
    assert result.status is Status.OK
    assert result.stdout == b"a" * 60_000 + b"\n"


async def test_what_a_thread_prints_between_cells_comes_with_the_next(sandbox: Sandbox) -> None:
    code = "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late', flush=True)\n"
    assert (await sandbox.run_cell(code + "threading.Thread(target=late).start()")).text == ""
    await asyncio.sleep(1.0)
    assert (await sandbox.run_cell("print('now')")).text == "late\nnow\n"


async def test_closing_what_the_session_hangs_on_only_ends_it(sandbox: Sandbox) -> None:
    result = await sandbox.run_cell("import os; os.closerange(3, 50); x = 1")
    assert result.status in (Status.NONZERO, Status.SIGNAL)
    assert (await sandbox.run_cell("'x' in globals()")).text == "False\n"


HOLD_EVERY_PLACE = """
import os, time
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
    except OSError:
        break
"""
STOP_FILE_OPERATIONS = """
import os, signal, threading
def stop():
    own = {os.getpid(), 1}
    while True:
        for name in os.listdir('/proc'):
            if name.isdigit() and int(name) not in own:
                try: os.kill(int(name), signal.SIGSTOP)
                except OSError: pass
threading.Thread(target=stop, daemon=True).start()
"""
STUFF_THE_PIPES = """
import os
for path, flags in (('/proc/self/fd/3', os.O_WRONLY), ('/proc/self/fd/4', os.O_WRONLY)):
    end = os.open(path, flags | os.O_NONBLOCK)
    try:
        while True: os.write(end, bytes(65536))
    except OSError:
        pass
"""
DRAIN_THE_PIPES = """
import os, threading
end = os.open('/proc/self/fd/4', os.O_RDONLY)
def drain():
    while True: os.read(end, 1)
threading.Thread(target=drain, daemon=True).start()
"""


@pytest.mark.parametrize("code", [HOLD_EVERY_PLACE, STOP_FILE_OPERATIONS, STUFF_THE_PIPES, DRAIN_THE_PIPES])
async def test_a_session_that_fights_back_is_no_outage(backend: Backend, limits: Limits, code: str) -> None:
    """Whatever comes of it is the program's own doing, and the next episode finds a sandbox that works."""
    async with await backend.open(limits) as sandbox:
        await sandbox.run_cell(code, wall_seconds=2.0)
        with contextlib.suppress(OSError):
            await sandbox.write({"file": b"1"})
            await sandbox.read("file")
        await sandbox.run_cell("1", wall_seconds=2.0)
        await sandbox.run_python("print(1)")
    async with await backend.open(limits) as sandbox:
        assert (await sandbox.run_cell("1 + 1")).text == "2\n"


async def test_nothing_of_a_session_reaches_the_next_episode(backend: Backend, limits: Limits) -> None:
    async with await backend.open(limits) as sandbox:
        daemon = "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass"
        await sandbox.run_cell("secret = 'canary'\nopen('/tmp/left', 'w').write(secret)\n" + daemon)
    async with await backend.open(limits) as sandbox:
        looked = await sandbox.run_cell("import os\nprint('secret' in globals(), os.listdir('/tmp'))")
        assert looked.text == "False []\n"
        count = "print(len([n for n in os.listdir('/proc') if n.isdigit()]))"
        assert int((await sandbox.run_cell(count)).text) <= 4


async def test_cancelling_a_cell_leaves_nothing(sandbox: Sandbox) -> None:
    running = asyncio.create_task(sandbox.run_cell("import time; time.sleep(30)"))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await sandbox.close()
