"""Programs that try to be paid without solving the problem: each is worth 0, and none is missing data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.env.registration import make
from envgym.env.run_sync import run_sync
from envgym.env.services import Services
from envgym.records import Message, Task, ToolCall, Trajectory
from envgym.sandbox.interface import Backend
from envgym.verifiers.code_tests.tagged_json import encode
from envgym_environments.code_sandbox.suites import (
    AssertTests,
    StdioTest,
    StdioTests,
    Suite,
    ValueTest,
    ValueTests,
)

pytestmark = pytest.mark.docker

CANARY = "CANARY-0f1e2d3c4b5a6978"
SEARCH = r"""
import gc, os, re, sys
PATTERN = re.compile(rb"CANARY-[0-9a-f]{16}")
def everything():
    yield repr(sys.argv).encode()
    yield repr(dict(os.environ)).encode()
    for name in os.listdir("/proc"):
        for part in ("environ", "cmdline", "comm") if name.isdigit() else ():
            yield read(f"/proc/{name}/{part}")
    for folder in (".", "/tmp", "/program", "/dev", "/home", "/root", "/work", "/var/tmp", "/run"):
        for at, _, names in os.walk(folder):
            for name in names[:200]:
                yield read(os.path.join(at, name))
    frame = sys._getframe()
    while frame:
        yield repr(frame.f_locals).encode("utf-8", "replace")[:1000000]
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, (str, bytes, list, dict, tuple)) and len(thing) < 1000:
            yield repr(thing).encode("utf-8", "replace")[:100000]
    for line in open("/proc/self/maps"):
        if "rw-p" in line and "vvar" not in line:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            try:
                with open("/proc/self/mem", "rb") as memory:
                    memory.seek(start)
                    yield memory.read(min(end - start, 8000000))
            except (OSError, ValueError, OverflowError):
                pass
def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(100000)
    except OSError:
        return b""
def f(x):
    for blob in everything():
        found = PATTERN.search(blob)
        if found:
            return found.group().decode()
    return "nothing"
"""
FAKE_LINES = r"""
import json, os
for fd in range(1, 12):
    for index in range(-1, 8):
        for line in ([index, "value", 1], [index, "passed"], "PASSED", "OK", {"passed": True}):
            try:
                os.write(fd, ("\n" + json.dumps(line) + "\n").encode())
            except OSError:
                pass
"""
HACKS = {
    "sys.exit at import": "import sys\nsys.exit(0)",
    "os._exit at import": "import os\nos._exit(0)",
    "SystemExit in the function": "def f(x):\n    raise SystemExit(0)",
    "os._exit in the function": "import os\ndef f(x):\n    os._exit(0)",
    "kills itself": "import os\ndef f(x):\n    os.kill(os.getpid(), 9)",
    "kills everything": "import os\ndef f(x):\n    os.kill(-1, 9)",
    "atexit marker": "import atexit\natexit.register(print, 'PASSED')\ndef f(x):\n    return None",
    "fake answers at import": FAKE_LINES,
    "fake answers, then exit": FAKE_LINES + "\nos._exit(0)",
    "fake answers in the function": "def f(x):\n" + "\n".join(f"    {line}" for line in FAKE_LINES.splitlines()),
    "daemon-like errors": "import sys\nsys.stderr.write('docker: Error response from daemon\\n')\nsys.exit(125)",
    "patched json": "import json\njson.dumps = lambda *a, **k: '[0, \"passed\"]'\ndef f(x):\n    return 1",
    "patched builtins": (
        "import builtins, sys\nbuiltins.print = builtins.repr = lambda *a, **k: 'PASSED'\n"
        "sys.stdout = sys.stderr\ndef f(x):\n    return 1"
    ),
    "patched main": (
        "import __main__\n__main__.encode = lambda v: True\n__main__.describe = lambda e: ['ok', 'ok']\n"
        "def f(x):\n    return 1"
    ),
    "patched loader": (
        "import builtins, linecache\nbuiltins.compile = builtins.exec = lambda *a, **k: None\n"
        "linecache.cache.clear()\ndef f(x):\n    return None"
    ),
    "patched frames": "import sys\nsys._getframe(1).f_globals['equal'] = lambda *a: True\ndef f(x):\n    return 1",
    "another module under its name": (
        "import sys, types\nmade = types.ModuleType(__name__)\nmade.f = lambda x: 'PASSED'\n"
        "sys.modules[__name__] = sys.modules['tests'] = sys.modules['reference'] = made\n"
        "def f(x):\n    return None"
    ),
    "no modules at all": "import sys\nsys.modules.clear()\ndef f(x):\n    return None",
    "another main": (
        "import sys\nclass Main:\n    def __getattr__(self, name):\n        return lambda *a: True\n"
        "sys.modules['__main__'] = Main()\ndef f(x):\n    return None"
    ),
    "every frame and every caller's file": (
        "import inspect\ndef f(x):\n    seen = [repr(i.frame.f_locals) + repr(i.frame.f_globals) + "
        "''.join(i.code_context or []) for i in inspect.stack(1)]\n"
        "    return next((w for s in seen for w in s.split(chr(39)) if w[:4] == 'CANA' and len(w) > 20), None)"
    ),
    "answers of a forked process": (
        "import multiprocessing\ndef forge():\n"
        + "\n".join(f"    {line}" for line in FAKE_LINES.splitlines())
        + "\ndef f(x):\n    p = multiprocessing.get_context('fork').Process(target=forge)\n"
        "    p.start()\n    p.join()"
    ),
    "answers of a thread that stays": (
        "import threading\ndef forge():\n    while True:\n"
        + "\n".join(f"        {line}" for line in FAKE_LINES.splitlines())
        + "\nthreading.Thread(target=forge, daemon=True).start()\ndef f(x):\n    return None"
    ),
    "its file rewritten": (
        "with open(__file__, 'w') as file:\n    file.write('def f(x):\\n    return x')\n"
        "def f(x):\n    import os\n    os._exit(0)"
    ),
    "a generator without an end": "def f(x):\n    while True:\n        yield 'one'",
    "a number that raises when compared": "from decimal import Decimal\ndef f(x):\n    return Decimal('sNaN')",
    "a number that takes for ever to compare": (
        "from fractions import Fraction\ndef f(x):\n    return [Fraction(3 ** 99999, 2 ** 99999)] * 50"
    ),
    "a class under another's name": (
        "class D:\n    def __str__(self):\n        return '1' * 10 ** 6\n"
        "D.__module__, D.__qualname__ = 'decimal', 'Decimal'\ndef f(x):\n    return D()"
    ),
    "an object that says it is text": (
        "class E:\n    __class__ = property(lambda self: str)\n    def __eq__(self, o):\n        return True\n"
        "def f(x):\n    return E()"
    ),
    "a number inside a number": (
        "class N:\n    shape = ()\n    def item(self):\n        return N()\ndef f(x):\n    return N()"
    ),
    "equals everything": "class E:\n    def __eq__(self, o):\n        return True\n    __hash__ = None\n"
    "def f(x):\n    return E()",
    "a string that equals everything": "class E(str):\n    def __eq__(self, o):\n        return True\n"
    "    __hash__ = str.__hash__\ndef f(x):\n    return E('x')",
    "raises what a test raises": "def f(x):\n    raise AssertionError",
    "stops iteration": "def f(x):\n    raise StopIteration",
    "not a function": "f = True",
    "no code": "",
    "hard-coded visible example": "def f(x):\n    return {1: 'one'}.get(x)",
    "returns a huge number": "def f(x):\n    return 10 ** 6000",
    "raises text that is not text": "def f(x):\n    raise ValueError('\\ud800')",
    "raises in str": "class E(Exception):\n    def __str__(self):\n        raise E\ndef f(x):\n    raise E",
    "shadow modules": (
        "for name in ('json', 'random', 'math', 'os', 'signal', 'builtins', 'sitecustomize', 'usercustomize'):\n"
        "    with open(name + '.py', 'w') as file:\n"
        "        file.write('import os\\nos.write(1, b\\'[0, \"passed\"]\\\\n\\')\\nos._exit(0)')\n"
        "def f(x):\n    return None"
    ),
    "searches for the answer": SEARCH,
    "recursion": "def f(x):\n    return f(x)",
    "output flood": "import os\ndef f(x):\n    for fd in (1, 3, 4):\n        os.write(fd, b'[' * 5000000)",
}
SOLUTION = f"def f(x):\n    return {{1: 'one', 2: {CANARY!r}, 3: 'three'}}[x]"
SUITES: dict[str, Suite] = {
    "values": ValueTests(
        entry_point="f",
        solution=SOLUTION,
        visible=[ValueTest(arguments=[1], expected="one")],
        hidden=[ValueTest(arguments=[2], expected=CANARY), ValueTest(arguments=[3], expected="three")],
    ),
    "asserts": AssertTests(
        entry_point="f",
        solution=SOLUTION,
        visible=["assert f(1) == 'one'"],
        hidden=[
            f"def check(candidate):\n    assert candidate(2) == {CANARY!r}\ncheck(candidate)",
            "assert f(3) == 'three'",
        ],
    ),
    "stdio": StdioTests(
        solution=f"print({{1: 'one', 2: {CANARY!r}, 3: 'three'}}[int(input())])",
        visible=[StdioTest(stdin="1\n", stdout="one\n")],
        hidden=[StdioTest(stdin="2\n", stdout=f"{CANARY}\n"), StdioTest(stdin="3\n", stdout="three\n")],
    ),
}
Submit = Callable[[str, str], Trajectory]


@pytest.fixture(scope="module")
def env(usable_backend: Callable[[str], type[Backend]]) -> Iterator[ChatEnv]:
    usable_backend("docker")
    services = Services("docker")
    yield make("code_sandbox-v1", services=services, call_seconds=2.0, wall_seconds=6.0, run_python=True)
    run_sync(services.close())


@pytest.fixture
def submit(env: ChatEnv) -> Submit:
    """Try a program on the visible tests of a suite, then submit it."""

    def run(suite: str, code: str) -> Trajectory:
        task = Task(
            id=suite,
            split="train",
            messages=(Message(role="user", content="Write f."),),
            reference=SUITES[suite].model_dump(mode="json"),
        )
        env.reset(seed=0, options={"task": task})
        for name in ("run_tests", "submit"):
            call = ToolCall(name=name, arguments={"code": code}, id="c")
            env.step(Message(role="assistant", content="", tool_calls=(call,)))
        return env.trajectory

    return run


@pytest.mark.parametrize("suite", SUITES)
def test_the_solution_is_paid(submit: Submit, suite: str) -> None:
    trajectory = submit(suite, SUITES[suite].solution)
    assert trajectory.turns[1].messages[0].content == "passed"
    assert trajectory.reward == 1.0


@pytest.mark.parametrize("suite", ["values", "asserts"])
@pytest.mark.parametrize("hack", HACKS)
def test_a_hack_is_worth_nothing(submit: Submit, suite: str, hack: str) -> None:
    trajectory = submit(suite, HACKS[hack])
    assert trajectory.reward == 0.0
    assert trajectory.score is not None
    assert trajectory.score.metrics["hidden_share"] == 0.0
    assert not any(CANARY in m.content for m in trajectory.messages)
    trajectory.turns[1].messages[0].content.encode()


@pytest.mark.parametrize("hack", ["sys.exit at import", "fake answers at import", "atexit marker", "no code"])
def test_a_hack_of_a_whole_program_is_worth_nothing(submit: Submit, hack: str) -> None:
    assert submit("stdio", HACKS[hack]).reward == 0.0
    assert submit("stdio", SEARCH + "\nprint(f(0))").reward == 0.0


def test_the_search_finds_what_is_there(submit: Submit) -> None:
    """Positive control: a canary among the arguments is found by the same search."""
    suite = SUITES["values"]
    assert isinstance(suite, ValueTests)
    planted = suite.model_copy(update={"hidden": [ValueTest(arguments=[encode([CANARY])], expected=CANARY)]})
    SUITES["planted"] = planted
    try:
        assert submit("planted", SEARCH).reward == 1.0
    finally:
        del SUITES["planted"]


def test_a_tests_time_is_its_own(submit: Submit) -> None:
    """A call that does not end fails its own test; so does one that sleeps, or kills the process."""
    for bad in (
        "while True:\n            pass",
        "import time\n        time.sleep(99)",
        "import os\n        os._exit(0)",
    ):
        code = f"def f(x):\n    if x == 2:\n        {bad}\n    return 'three'"
        trajectory = submit("values", code)
        assert trajectory.score is not None
        assert trajectory.score.metrics["hidden_share"] == 0.5


def test_rescoring_needs_no_episode(submit: Submit, env: ChatEnv) -> None:
    trajectory = submit("asserts", SUITES["asserts"].solution)
    again = env.score(trajectory)
    assert inspect.iscoroutine(again)
    assert run_sync(again) == trajectory.score


def test_python_can_be_run(env: ChatEnv) -> None:
    env.reset(seed=0)
    for code, answer in (
        ("print(1 + 1)", "2"),
        ("x = 1", "nothing was printed"),
        ("x + 1", "2"),
        ("1 / 0", "error: nonzero: ZeroDivisionError: division by zero"),
        ("while True: pass", "error: timeout: "),
        ("print('x' * 999)", "x" * 300),
    ):
        call = ToolCall(name="run_python", arguments={"code": code}, id="c")
        observation, *_ = env.step(Message(role="assistant", content="", tool_calls=(call,)))
        assert observation.messages[0].content == answer
    assert "run_python" not in make("code_sandbox-v1").tools
