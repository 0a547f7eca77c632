"""The contract of sandbox backends, as tests."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from envgym.env.run_sync import run_sync
from envgym.sandbox.interface import Backend, ExecResult, Limits, Sandbox, Status
from envgym.sandbox.selection import sandboxes

__all__ = ["IsolatedSandboxContract", "SandboxContract"]

_ENDINGS = {
    "it prints": ("print(1)", Status.OK, 0),
    "it exits": ("raise SystemExit(3)", Status.NONZERO, 3),
    "it raises": ("1/0", Status.NONZERO, 1),
    "a signal": ("import os; os.kill(os.getpid(), 15)", Status.SIGNAL, None),
    "it is late": ("while True: pass", Status.TIMEOUT, None),
    "it floods": ("print('x' * 10**6)", Status.OUTPUT_LIMIT, None),
}
_HONEST = {
    "a process pool": "from multiprocessing import Pool\nwith Pool(2) as pool: print(sum(pool.map(abs, [-1, 2])))",
    "temporary files": "import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'abc'))",
    "threads": "from concurrent.futures import ThreadPoolExecutor as P\nprint(sum(P(4).map(int, '012')))",
    "a subprocess": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(3)'])",
    "20 MB": "x = bytearray(b'x' * (20 * 2**20)); print(len(x) // (20 * 2**20) * 3)",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0.01); return 3\nprint(asyncio.run(f()))",
}
_AS_CPYTHON_ENDS = """
import atexit, sys, threading, time
atexit.register(print, "atexit")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
sys.exit("said")
"""


class SandboxContract:
    """Test that honest programs run as they should, and that statuses tell their endings apart.

    A subclass sets:
        backend: name of the backend, or ``"package.module:Class"``.
        settings: fields of its ``Config``.
        limits: limits of the sandboxes that the tests open.

    A backend with ``isolated = True`` must inherit ``IsolatedSandboxContract``, which demands more.
    """

    backend: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    limits: ClassVar[Limits] = Limits(
        wall_seconds=10.0,
        total_seconds=60.0,
        memory_bytes=128 * 2**20,
        disk_bytes=8 * 2**20,
        output_bytes=64 * 2**10,
        processes=32,
        open_files=64,
    )

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls) -> Iterator[Backend]:
        """Make the backend, which the tests of the class share; skip where this machine cannot run it."""
        if reason := sandboxes.load(cls.backend).unavailable():
            pytest.skip(reason)
        backend = sandboxes.make(cls.backend, cls.settings)
        yield backend
        run_sync(backend.close())
        run_sync(backend.close())  # safe to call twice

    @pytest.fixture
    def sandbox(self, opened: Backend) -> Iterator[Sandbox]:
        """Open a fresh sandbox."""
        sandbox = run_sync(opened.open(self.limits))
        yield sandbox
        run_sync(sandbox.close())
        run_sync(sandbox.close())  # safe to call twice

    def test_an_isolating_backend_is_tested_for_isolation(self, opened: Backend) -> None:
        """Refuse an untested claim of isolation."""
        assert not opened.isolated or isinstance(self, IsolatedSandboxContract)

    @pytest.mark.parametrize("name", _ENDINGS)
    def test_the_status_says_how_a_program_ended(self, sandbox: Sandbox, name: str) -> None:
        """Tell endings apart, and run another program afterwards."""
        code, status, exit_code = _ENDINGS[name]
        started = time.monotonic()
        result = _run(sandbox, code, wall_seconds=1.0 if status is Status.TIMEOUT else None)
        assert result.status is status, result
        assert exit_code in (None, result.exit_code)
        assert (result.signal == 15) is (status is Status.SIGNAL)
        assert time.monotonic() - started < self.limits.wall_seconds
        assert len(result.stdout) <= self.limits.output_bytes + 200
        assert _run(sandbox, "print(1)").text == "1\n"

    def test_streams_are_kept_apart(self, sandbox: Sandbox) -> None:
        """Read standard input, write both outputs."""
        code = "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr)"
        result = _run(sandbox, code, stdin=b"in")
        assert (result.stdout, result.stderr) == (b"IN\n", b"e\n")

    def test_files_come_and_go(self, sandbox: Sandbox) -> None:
        """Write files, import one, read what the program wrote."""
        run_sync(sandbox.write({"module.py": b"answer = 42", "data/x": b"\0\1"}))
        result = _run(sandbox, "import module; print(module.answer); open('out', 'w').write('o')")
        assert result.text == "42\n", result
        assert run_sync(sandbox.read("out")) == b"o"
        assert run_sync(sandbox.read("data/x")) == b"\0\1"
        with pytest.raises(FileNotFoundError):
            run_sync(sandbox.read("none"))
        with pytest.raises(ValueError, match=r"\S"):
            run_sync(sandbox.read("data/x", limit=1))

    @pytest.mark.parametrize("path", ["../up", "/etc/up", "a/../../up", ""])
    def test_a_path_that_leaves_the_work_folder_is_refused(self, sandbox: Sandbox, path: str) -> None:
        """Refuse to write and to read it."""
        with pytest.raises(ValueError, match=r"\S"):
            run_sync(sandbox.write({path: b""}))
        with pytest.raises(ValueError, match=r"\S"):
            run_sync(sandbox.read(path))

    def test_commands_run(self, sandbox: Sandbox) -> None:
        """Run a shell; a command that does not exist is the caller's outcome, not a failure."""
        result = run_sync(sandbox.exec(["/bin/sh", "-c", "read word; echo got $word; exit 4"], stdin=b"it\n"))
        assert (result.status, result.exit_code, result.stdout) == (Status.NONZERO, 4, b"got it\n")
        assert run_sync(sandbox.exec(["no-such-command"])).status is Status.NONZERO

    def test_every_program_starts_afresh(self, sandbox: Sandbox) -> None:
        """Run two programs, and find no name of the first in the second."""
        assert _run(sandbox, "x = 1; print(__name__)").text == "__main__\n"
        assert "NameError" in _run(sandbox, "print(x)").error_text

    def test_a_program_ends_as_cpython_ends_it(self, sandbox: Sandbox) -> None:
        """Wait for threads, run exit handlers, print what ``sys.exit`` is given."""
        result = _run(sandbox, _AS_CPYTHON_ENDS)
        assert (result.exit_code, result.text, result.error_text) == (1, "thread\natexit\n", "said\n")

    @pytest.mark.parametrize("name", _HONEST)
    def test_honest_programs_are_not_in_the_way(self, sandbox: Sandbox, name: str) -> None:
        """Run the common work of honest programs."""
        result = _run(sandbox, _HONEST[name])
        assert (result.status, result.text) == (Status.OK, "3\n"), result

    def test_a_session_keeps_names_from_cell_to_cell(self, sandbox: Sandbox) -> None:
        """Print the value of a last expression; a cell that raises does not end the session."""
        assert run_sync(sandbox.run_cell("x = 20\n2 * x")).text == "40\n"
        failed = run_sync(sandbox.run_cell("x += 1\n1 / 0"))
        assert failed.status is Status.NONZERO
        assert "ZeroDivisionError" in failed.error_text
        assert run_sync(sandbox.run_cell("x")).text == "21\n"

    def test_what_ends_a_session_starts_another(self, sandbox: Sandbox) -> None:
        """End it by an exit, by the deadline and by a program."""
        gone = "print('x' in globals())"
        for end in ("import os; os._exit(0)", "while True: pass"):
            run_sync(sandbox.run_cell("x = 1"))
            run_sync(sandbox.run_cell(end, wall_seconds=0.5))
            assert run_sync(sandbox.run_cell(gone)).text == "False\n"
        run_sync(sandbox.run_cell("x = 1"))
        assert _run(sandbox, gone).text == "False\n"
        assert run_sync(sandbox.run_cell(gone)).text == "False\n"

    def test_sandboxes_share_nothing_and_run_at_once(self, opened: Backend) -> None:
        """Write a file of the same name in three concurrent sandboxes."""

        async def write(name: str) -> str:
            async with await opened.open(self.limits) as sandbox:
                await sandbox.write({"mine": name.encode()})
                await asyncio.sleep(0.1)
                return (await sandbox.run_python("import os; print(os.listdir('.'), open('mine').read())")).text

        async def together() -> list[str]:
            return await asyncio.gather(*map(write, "abc"))

        assert run_sync(together()) == [f"['mine'] {name}\n" for name in "abc"]


class IsolatedSandboxContract(SandboxContract):
    """Test that hostile programs are contained, besides the demands of ``SandboxContract``.

    These are samples, not a proof, and bounded: a backend that contains nothing does not bring the host down.
    docs/sandbox-security.md describes the attacks that a backend should withstand.
    """

    def test_memory_is_limited(self, sandbox: Sandbox) -> None:
        """End a program that allocates without bound."""
        result = _run(sandbox, "blocks = [bytearray(b'x' * 2**20) for _ in range(1024)]")
        assert result.status is Status.OOM, result

    def test_the_disk_is_limited(self, sandbox: Sandbox) -> None:
        """Refuse to write more than the limit."""
        code = "for n in range(64):\n    with open(str(n), 'wb') as file: file.write(b'x' * 2**20)"
        assert _run(sandbox, code).status is Status.DISK_FULL

    def test_processes_are_limited_and_end_with_the_program(self, sandbox: Sandbox) -> None:
        """Refuse to fork without end, and leave room for the next program's processes."""
        result = _run(
            sandbox, "import os, time\nfor _ in range(200):\n    if os.fork() == 0: time.sleep(5); os._exit(0)"
        )
        assert result.status in (Status.PIDS_LIMIT, Status.NONZERO), result
        few = "import os\nfor _ in range(20):\n    if os.fork() == 0: os._exit(0)"
        assert _run(sandbox, few).status is Status.OK

    def test_there_is_no_network(self, sandbox: Sandbox) -> None:
        """Refuse a connection to an outside address at once."""
        result = _run(sandbox, "import socket\nsocket.create_connection(('1.1.1.1', 80), 3)")
        assert result.status is Status.NONZERO
        assert "OSError" in result.error_text

    def test_files_of_the_host_are_out_of_reach(self, sandbox: Sandbox) -> None:
        """Find no file that the host keeps in its temporary folder."""
        with tempfile.NamedTemporaryFile() as secret:
            Path(secret.name).chmod(0o644)
            result = _run(sandbox, f"print(open({secret.name!r}).read())")
        assert "FileNotFoundError" in result.error_text, result

    def test_nothing_is_left_for_the_next_sandbox(self, opened: Backend) -> None:
        """Find neither files nor processes of a sandbox that was closed."""
        leave = "import os, time\nopen('/tmp/left', 'w').close()\nif os.fork() == 0: time.sleep(600)"
        look = "import os\nprint(os.path.exists('/tmp/left'), os.listdir('.'))"
        for code, expected in ((leave, ""), (look, "False []\n")):
            sandbox = run_sync(opened.open(self.limits))
            try:
                assert _run(sandbox, code, wall_seconds=2.0).text == expected
            finally:
                run_sync(sandbox.close())


def _run(sandbox: Sandbox, code: str, *, stdin: bytes = b"", wall_seconds: float | None = None) -> ExecResult:
    """Run a Python program from synchronous code; see ``Sandbox.run_python``."""
    return run_sync(sandbox.run_python(code, stdin=stdin, wall_seconds=wall_seconds))
