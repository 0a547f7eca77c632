"""The pool of workers: killed, respawned, limited, gone with its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envgym.workers.pool import WorkerFailedError, WorkerPool, WorkerTimeoutError

_CAS = "envgym.math_equivalence.cas"
_NUMERIC = "envgym.math_equivalence.numeric"
_TWO = ["num", "2", "1"]
_NESTED: dict[str, Any] = {
    "prediction": [
        "call",
        "root",
        ["add", ["num", "3", "1"], ["call", "root", ["num", "8", "1"], _TWO]],
        _TWO,
    ],
    "gold": ["add", ["num", "1", "1"], ["call", "root", _TWO, _TWO]],
    "tolerance": None,
}
_HUGE_SUM = {
    "prediction": r"\sum_{k=1}^{10^8} \frac{\sin k}{k!}",
    "gold": r"\int_0^1 e^{\sin x^3} dx",
}


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(size=1)
    yield pool
    pool.close()


def _workers(parent: int) -> set[Path]:
    """The /proc folders of the workers that ``parent`` started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            of_parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if of_parent and "workers.process" in (folder / "cmdline").read_text():
                found.add(folder)
    return found


def test_a_killed_worker_is_replaced(pool: WorkerPool) -> None:
    """The request that finds it dead fails as the verifier's error; the next one is answered."""
    others = _workers(os.getpid())
    assert pool.ask(_NUMERIC, _NESTED, 2.0).found == {"equal": True}
    (worker,) = _workers(os.getpid()) - others
    os.kill(int(worker.name), signal.SIGKILL)
    with pytest.raises(WorkerFailedError):
        pool.ask(_NUMERIC, _NESTED, 2.0)
    assert pool.ask(_NUMERIC, _NESTED, 2.0).found == {"equal": True}


def test_a_request_past_its_time_is_killed_and_the_worker_lives_on(pool: WorkerPool) -> None:
    """A deadline of a few milliseconds; the worker that forked the computation answers the next request."""
    pool.ask(_CAS, {"prediction": "1", "gold": "1"}, 5.0)
    start = time.perf_counter()
    with pytest.raises(WorkerTimeoutError):
        pool.ask(_CAS, _HUGE_SUM, 0.05)
    assert time.perf_counter() - start < 1.0
    assert pool.ask(_NUMERIC, _NESTED, 2.0).found == {"equal": True}


def test_many_threads_share_few_workers(pool: WorkerPool) -> None:
    """Replies never cross: each thread gets the answer to its own question."""
    unequal = {**_NESTED, "gold": ["num", "2", "1"]}
    results: list[bool] = []

    def ask(number: int) -> None:
        reply = pool.ask(_NUMERIC, unequal if number % 2 else _NESTED, 5.0)
        results.append(reply.found["equal"] is (number % 2 == 0))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 12


def test_a_worker_ends_with_its_parent() -> None:
    """Even when the parent is killed outright."""
    program = (
        "import sys, time\n"
        "from envgym.verifiers import verify_math\n"
        "assert verify_math(r'\\sqrt{3+2\\sqrt{2}}', r'1+\\sqrt{2}').correct\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (worker,) = _workers(parent.pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.exists()


def test_a_forked_process_gets_its_own_pool() -> None:
    """Two processes on the same pipes would read each other's replies."""
    program = (
        "import os\n"
        "from envgym.verifiers import verify_math\n"
        "ask = lambda: verify_math(r'\\sqrt{3+2\\sqrt{2}}', r'1+\\sqrt{2}').correct\n"
        "assert ask()\n"
        "child = os.fork()\n"
        "ok = all(ask() for _ in range(5))\n"
        "if child == 0:\n"
        "    os._exit(0 if ok else 1)\n"
        "assert ok and os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)
