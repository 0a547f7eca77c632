"""What ends a program, raised by an author's code, is that code's failure; a real Ctrl-C is not."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.culprit import contained, is_authors
from envgym.env.run_sync import run_sync
from envgym.errors import EnvironmentFailure, PluginError
from envgym.records import Message, Score, Split, Task, Trajectory


class Odd(BaseException):
    """Neither an exception nor known to anybody."""


EXITS: list[Callable[[], BaseException]] = [
    lambda: SystemExit(3), KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Odd
]  # fmt: skip


class Leaver(ChatEnv):
    """Leaves at one place."""

    place = ""
    leave: Callable[[], BaseException] = KeyboardInterrupt

    def _at(self, place: str) -> None:
        if place == self.place:
            raise self.leave()

    def tasks(self, split: Split) -> list[Task]:
        self._at("tasks")
        return [Task(id="t", split=split, messages=())]

    async def start(self, task: Task) -> None:
        self._at("start")

    async def respond(self, action: Message) -> Reply:
        self._at("respond")
        return Reply(done=True)

    async def conclude(self) -> None:
        self._at("conclude")

    def score(self, trajectory: Trajectory) -> Score:
        self._at("score")
        return Score(value=1.0, accuracy=1.0)

    async def finish(self) -> None:
        self._at("finish")


@pytest.mark.parametrize("leave", EXITS)
@pytest.mark.parametrize("place", ["start", "respond", "conclude", "score", "finish"])
def test_a_hook_that_leaves_fails_its_step_and_not_the_program(
    place: str, leave: Callable[[], BaseException]
) -> None:
    env = Leaver()
    env.place, env.leave = place, leave  # type: ignore[method-assign]

    def play() -> None:
        env.reset(seed=0)
        env.step(Message(role="assistant", content=""))

    with pytest.raises(EnvironmentFailure, match=type(leave()).__name__):
        play()
    env.place = ""
    env.reset(seed=1)
    assert env.step(Message(role="assistant", content=""))[1] == 1.0


def test_tasks_that_leave_are_a_broken_plugin() -> None:
    env = Leaver()
    env.place = "tasks"
    with pytest.raises(PluginError, match="KeyboardInterrupt"):
        env.reset(seed=0)


@pytest.mark.parametrize("leave", EXITS)
def test_the_thread_that_drives_synchronous_callers_survives(leave: Callable[[], BaseException]) -> None:
    async def go() -> None:
        raise leave()

    async def two() -> int:
        return 2

    with pytest.raises(type(leave())):
        run_sync(go())
    assert run_sync(two()) == 2


async def test_a_real_cancellation_passes() -> None:
    async def wait() -> None:
        with contained(EnvironmentFailure):
            await asyncio.sleep(60)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_task_of_the_authors_own_that_was_cancelled_is_the_authors_failure() -> None:
    async def wait() -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        inner.cancel()
        with contained(EnvironmentFailure):
            await inner

    with pytest.raises(EnvironmentFailure, match="CancelledError"):
        await wait()


def test_a_signal_is_not_the_authors() -> None:
    """With Python's own handler, and with one that exits as programs do on SIGTERM."""
    with pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(signal.SIGINT)
    assert not is_authors(caught.value)

    def leave(*_: object) -> None:
        sys.exit(4)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert not is_authors(left.value)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_coroutine_that_is_closed_is_not_the_authors() -> None:
    raised: list[bool] = []

    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    async def wait() -> None:
        try:
            await Pause()
        except GeneratorExit as error:
            raised.append(is_authors(error))
            raise

    waiting = wait()
    waiting.send(None)
    waiting.close()
    assert raised == [False]


PROGRAM = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from test_exits import Leaver
from envgym.policies.scripted import EmptyPolicy
from envgym.rollout.episode import rollout
class Waits(Leaver):
    async def respond(self, action):
        print("waiting", flush=True)
        {wait}
async def main():
    env = Waits()
    print(await rollout(env, EmptyPolicy(), env.task_list("train")[0], name="e", seed=0))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "wait", ["await asyncio.sleep(60)", "import time; time.sleep(0.5); await asyncio.sleep(60)"]
)
def test_a_real_ctrl_c_ends_the_run(wait: str) -> None:
    program = PROGRAM.format(folder=__file__.rpartition("/")[0], wait=wait)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=30)
    assert "KeyboardInterrupt" in error
    assert out == ""
