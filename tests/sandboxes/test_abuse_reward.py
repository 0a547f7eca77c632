"""Programs that reach for the reward instead of the answer (A16-A20, A26).

The reward is decided outside, by comparing the output with an answer that never goes in. ``solves`` is such a
judge in its smallest form.
"""

from __future__ import annotations

import time

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox, Status

CASES = [(b"2 3", b"5"), (b"10 -4", b"6"), (b"0 0", b"0"), (b"123 456", b"579")]
CORRECT = "a, b = map(int, input().split()); print(a + b)"


async def solves(sandbox: Sandbox, program: str, cases: list[tuple[bytes, bytes]]) -> bool:
    for given, expected in cases:
        result = await sandbox.run_python(program, stdin=given, wall_seconds=2.0)
        if result.status is not Status.OK or result.stdout.strip() != expected:
            return False
    return True


CHEATS = {
    "patches print": "import builtins; builtins.print = lambda *a: None; print(5)",
    "patches stdout": "import sys\nclass S:\n def write(self, s): return 5\nsys.stdout = S()",
    "always equal": "class E(str):\n def __eq__(self, other): return True\nprint(E('x'))",
    "shadows modules": "open('json.py','w').write('dumps=lambda x:5'); import json; print(json.dumps(1))",
    "sitecustomize": "for n in ('sitecustomize.py','usercustomize.py'): open(n,'w').write('print(5)')",
    "startup": "import os; os.environ['PYTHONSTARTUP'] = 'x.py'; open('x.py','w').write('print(5)')",
    "exits zero": "import sys; sys.exit(0)",
    "hard exit": "import os; os._exit(0)",
    "raises SystemExit": "raise SystemExit",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "atexit marker": "import atexit; atexit.register(print, 'PASSED')",
    "guesses markers": "print('PASSED'); print('OK'); print('1 passed in 0.01s'); print('{\"reward\": 1.0}')",
    "daemon-like error": "import sys; sys.stderr.write('Error response from daemon: failed'); sys.exit(125)",
    "hard-codes the visible": "print({'2 3': 5}[input()])",
    "forges the wire": "import os\nfor n in range(3, 64):\n try: os.write(n, bytes(32))\n except OSError: 0",
}


@pytest.mark.parametrize("name", sorted(CHEATS))
async def test_a16_to_a19_cheating_earns_nothing(name: str, sandbox: Sandbox) -> None:
    assert not await solves(sandbox, CHEATS[name], CASES)
    assert await solves(sandbox, CORRECT, CASES), "an earlier cheat must not spoil an honest program"


async def test_a16_cheat_left_in_the_folder_does_not_help_the_next_execution(sandbox: Sandbox) -> None:
    plant = "for n in ('sitecustomize.py', 'os.py', 'builtins.py'): open(n, 'w').write('print(5)')"
    assert (await sandbox.run_python(plant)).status is Status.OK
    assert (await sandbox.run_python("print(1)")).text == "1\n"


async def test_a18_messages_like_the_infrastructures_are_the_programs(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("import sys; sys.exit('Cannot connect to the Docker daemon')")
    assert result.status is Status.NONZERO


async def test_a20_total_deadline_holds_over_many_slow_executions(backend: Backend) -> None:
    limits = Limits(wall_seconds=1.0, total_seconds=2.0, memory_bytes=128 * 2**20)
    async with await backend.open(limits) as sandbox:
        started = time.monotonic()
        results = [await sandbox.run_python("import time; time.sleep(0.9)") for _ in range(6)]
        assert time.monotonic() - started < 4.0
    assert results[-1].status is Status.TIMEOUT
    assert results[0].status is Status.OK


async def test_a26_clock_and_randomness_do_not_change_the_verdict(sandbox: Sandbox) -> None:
    program = "import time, os, random; time.time(); os.urandom(8); random.random()\n" + CORRECT
    assert [await solves(sandbox, program, CASES) for _ in range(2)] == [True, True]


async def test_randomness_differs_between_executions(sandbox: Sandbox) -> None:
    code = "import random, os, uuid; print(random.random(), os.urandom(8), uuid.uuid4())"
    assert len({(await sandbox.run_python(code)).text for _ in range(3)}) == 3
