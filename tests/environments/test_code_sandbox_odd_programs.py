"""Right programs, oddly written: each passes as functions, under asserts and as a whole, in every backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.env.registration import make
from envgym.env.run_sync import run_sync
from envgym.env.services import Services
from envgym.sandbox.interface import Backend
from envgym_environments.code_sandbox.env import CodeSandbox
from envgym_environments.code_sandbox.suites import (
    AssertTests,
    StdioTest,
    StdioTests,
    Suite,
    ValueTest,
    ValueTests,
)

TAIL = '\nif __name__ == "__main__":\n    print(f(int(input())))\n'
PLAIN = "def f(n):\n    return sum(k * k for k in range(n + 1))\n"
# A carriage return, a form feed or a mark of the byte order would not survive an editor.
ODD_TEXTS = {
    "a mark of the byte order": "\ufeff" + PLAIN,
    "a mark before future imports": "\ufefffrom __future__ import annotations\n" + PLAIN,
    "lines that end as in Windows": "'''a\nb'''\n".replace("\n", "\r\n") + PLAIN.replace("\n", "\r\n"),
    "lines that end as on an old Macintosh": PLAIN.replace("\n", "\r"),
    "tabs": PLAIN.replace("    ", "\t"),
    "a form feed between functions": "import inspect\n\x0c\ndef g():\n    return 'a'  # \u2028\n\n\x0c\n"
    + PLAIN
    + "assert inspect.getsource(f).startswith('def f(n)')\n",
    "a declared encoding that is its own": "# -*- coding: utf-8 -*-\nassert len('é') == 1\n" + PLAIN,
    "a declared encoding of old": "#!/usr/bin/env python\n# vim: set fileencoding=latin-1 :\n"
    + "assert ord('é') == 233\n"
    + PLAIN,
    "a declared encoding that cannot hold it": "# coding: ascii\nassert ord('é') == 233\n" + PLAIN,
    "a mark and a declared encoding": "\ufeff# coding: utf-8\n" + PLAIN,
    "no line end at its end": PLAIN.rstrip() + "  # the end",
    "a backslash at the end of a line": PLAIN.replace("sum(", "\\\n        sum("),
    "spaces at the ends of lines": PLAIN.replace("\n", "   \n") + "   \n\n\n",
    "a line of ten thousand characters": f"x = '{'a' * 10_000}'\n" + PLAIN,
}


def programs() -> dict[str, str]:
    """Every program by its name; those that read no input get a main part that does."""
    parts = re.split(r"^=== (.*)\n", (Path(__file__).parent / "odd_programs.txt").read_text(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True)) | ODD_TEXTS
    reads = re.compile(r"input\(|stdin|os\.read\(0|open\(0\)")
    return {name: text if reads.search(text) else text + TAIL for name, text in found.items()}


PROGRAMS = programs()
BATCH = 15
BATCHES = range(-(-len(PROGRAMS) // BATCH))
EXPECTED = {0: 0, 3: 14, 5: 55}
SUITES: dict[str, Suite] = {
    "values": ValueTests(
        entry_point="f",
        solution=PLAIN,
        visible=[],
        hidden=[ValueTest(arguments=[n], expected=total) for n, total in EXPECTED.items()],
    ),
    "asserts": AssertTests(
        entry_point="f",
        solution="from __future__ import annotations\n" + PLAIN,
        preamble="import math\n",
        visible=[],
        hidden=[f"def check(candidate):\n    assert candidate({n}) == {t}\ncheck(f)" for n, t in EXPECTED.items()],
    ),
    "stdio": StdioTests(solution=PLAIN + TAIL, visible=[], hidden=[StdioTest(stdin="5\n", stdout="55\n")]),
}


@pytest.fixture(
    scope="module", params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap", "unsafe_local"]
)
def env(request: pytest.FixtureRequest, usable_backend: Callable[[str], type[Backend]]) -> Iterator[ChatEnv]:
    usable_backend(request.param)
    services = Services(request.param)
    made = make("code_sandbox-v1", services=services, call_seconds=20.0, wall_seconds=60.0)
    made.reset(seed=0)
    yield made
    run_sync(services.close())


def failures(env: ChatEnv, suite: Suite, texts: dict[str, str]) -> dict[str, str]:
    """What the tests say of each program that fails them."""
    assert isinstance(env, CodeSandbox)

    async def run() -> dict[str, str]:
        async with env._make_boxes() as boxes:
            results = {name: await suite.run("hidden", text, boxes) for name, text in texts.items()}
        return {name: bad.text for name, each in results.items() for bad in each if not bad.passed}

    return run_sync(run())


def test_there_are_many_programs() -> None:
    assert len(PROGRAMS) >= 80
    assert len(set(PROGRAMS.values())) == len(PROGRAMS)


@pytest.mark.parametrize("number", BATCHES)
@pytest.mark.parametrize("suite", SUITES)
def test_a_right_program_passes(env: ChatEnv, suite: str, number: int) -> None:
    chosen = list(PROGRAMS.items())[number * BATCH : (number + 1) * BATCH]
    assert failures(env, SUITES[suite], dict(chosen)) == {}


def test_a_wrong_program_passes_nowhere(env: ChatEnv) -> None:
    """Positive control: the same tests tell a program that is off by one."""
    wrong = {"off by one": PLAIN.replace("n + 1", "n") + TAIL}
    assert all(failures(env, suite, wrong) for suite in SUITES.values())
