"""Programs that will not end, multiply, or die oddly (A1-A4, A10, A23-A25)."""

from __future__ import annotations

import asyncio
import time

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox, Status

ALIVE = """
import os
mine = {"1", str(os.getpid()), str(os.getppid())}
print([name for name in os.listdir("/proc") if name.isdigit() and name not in mine])
"""


async def survivors(sandbox: Sandbox) -> str:
    return (await sandbox.run_python(ALIVE)).text.strip()


async def test_a1_endless_loop_is_timed_out(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = await sandbox.run_python("while True: pass", wall_seconds=0.5)
    assert result.status is Status.TIMEOUT
    assert 0.4 < result.run_seconds < 2.0
    assert time.monotonic() - started < 4.0
    assert await survivors(sandbox) == "[]"


async def test_a2_ignored_signals_do_not_help(sandbox: Sandbox) -> None:
    code = """
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
while True: pass
"""
    assert (await sandbox.run_python(code, wall_seconds=0.5)).status is Status.TIMEOUT
    assert await survivors(sandbox) == "[]"


async def test_a3_daemon_dies_with_its_execution(sandbox: Sandbox) -> None:
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("daemon", flush=True)
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(0.1)
print("parent")
"""
    result = await sandbox.run_python(code)
    assert result.status is Status.OK
    assert "parent" in result.text
    assert await survivors(sandbox) == "[]"


BOMBS = {
    "fork": "import os\nwhile True:\n    os.fork()",
    "stubborn fork": """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
""",
    "thread": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
}


@pytest.mark.parametrize("name", sorted(BOMBS))
async def test_a4_bomb_hits_its_own_limit_and_no_neighbour(
    name: str, sandbox: Sandbox, backend: Backend, limits: Limits
) -> None:
    async with await backend.open(limits) as neighbour:
        bomb = asyncio.create_task(sandbox.run_python(BOMBS[name], wall_seconds=1.0))
        await asyncio.sleep(0.2)
        assert (await neighbour.run_python("print(1)", wall_seconds=8.0)).text == "1\n"
        assert (await bomb).status is Status.PIDS_LIMIT
    assert await survivors(sandbox) == "[]"


async def test_a10_closed_streams_do_not_hang_the_reader(sandbox: Sandbox) -> None:
    code = "import os, time\nos.close(1); os.close(2); time.sleep(100)"
    assert (await sandbox.run_python(code, wall_seconds=0.5)).status is Status.TIMEOUT


async def test_a23_children_never_waited_for_leave_no_zombies(sandbox: Sandbox) -> None:
    code = """
import os
made = 0
for _ in range(10_000):
    try:
        if os.fork() == 0:
            os._exit(0)
        made += 1
    except BlockingIOError:
        break
print(made)
"""
    result = await sandbox.run_python(code)
    assert result.status is Status.OK
    assert 10 < int(result.text) <= 32
    assert await survivors(sandbox) == "[]"


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("import ctypes; ctypes.string_at(0)", 11),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", 4),
        ("import os; os.abort()", 6),
    ],
)
async def test_a24_crashes_are_signals(sandbox: Sandbox, code: str, number: int) -> None:
    result = await sandbox.run_python(code)
    assert (result.status, result.signal, result.exit_code) == (Status.SIGNAL, number, None)


async def test_a24_deep_recursion_in_c_ends_the_program_only(sandbox: Sandbox) -> None:
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return max([x], key=f)\nf(1)"
    result = await sandbox.run_python(code)
    # Newer interpreters count their C frames and raise instead.
    assert result.signal == 11 or "RecursionError" in result.error_text
    assert (await sandbox.run_python("print(1)")).text == "1\n"


@pytest.mark.parametrize("code", [124, 137, 143])
async def test_a25_exit_codes_of_others_are_only_exit_codes(sandbox: Sandbox, code: int) -> None:
    result = await sandbox.run_python(f"import os; os._exit({code})")
    assert (result.status, result.exit_code) == (Status.NONZERO, code)


async def test_a25_program_that_kills_itself_is_no_oom(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("import os; os.kill(os.getpid(), 9)")
    assert (result.status, result.signal) == (Status.SIGNAL, 9)


async def test_runner_cannot_be_signalled_traced_or_limited(sandbox: Sandbox) -> None:
    code = """
import os, resource, signal
targets = {1, os.getppid()}
for target in targets:
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(target, number)
        except PermissionError:
            pass
    for path in ("mem", "environ", "fd/0", "fd/3", "fd/4", "maps"):
        try:
            with open(f"/proc/{target}/{path}", "rb") as file:
                if file.read(1):
                    print("read", path)
        except OSError:
            pass
    try:
        resource.prlimit(target, resource.RLIMIT_NOFILE, (1, 1))
        print("limited", target)
    except OSError:
        pass
print("done")
"""
    assert (await sandbox.run_python(code)).text == "done\n"
    assert (await sandbox.run_python("print(1)")).text == "1\n"
