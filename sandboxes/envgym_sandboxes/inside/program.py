"""Program of the forked child: become the program's process and run the program."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import resource
import signal
import sys
import traceback
import types
from typing import Any

from envgym.sandbox.source_file import execute, write_source

__all__ = ["enter", "exit_code", "flush", "fresh_main", "leave", "run_argv", "run_python", "take"]


def enter(config: dict[str, Any], descriptors: list[int]) -> None:
    """Become the program's process: a session of its own, the descriptors as 0, 1, 2, …, limits, no rights."""
    os.setsid()
    spare = [os.dup(descriptor) for descriptor in descriptors]
    for target, descriptor in enumerate(spare):
        os.dup2(descriptor, target)
    os.closerange(len(spare), 4096)
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # short of memory, the kernel kills the program rather than the runner
    for name, value in config["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if config["uid"] is not None:
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    os.umask(0o022)
    os.chdir(config["work"])


def take(descriptor: int) -> bytes:
    """Read the body from its memory file and close it."""
    with open(descriptor, "rb", buffering=0) as memory:
        return memory.read()


def fresh_main() -> types.ModuleType:
    """Install a new ``__main__`` in place of the runner's, and forget the runner's modules."""
    for module in [module for module in sys.modules if module.startswith("envgym")]:
        del sys.modules[module]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = [""]
    sys.orig_argv = [sys.executable, ""]
    sys.path.insert(0, "")
    sys.excepthook = show
    return main


def run_python(source: bytes, folder: str) -> None:
    """Run ``source`` as CPython runs a file: as a fresh ``__main__``, and with the traceback it would print.

    Args:
        source: the program, as UTF-8.
        folder: where its file is put. It must be a real one, for processes that start with a fresh interpreter.
    """
    path = f"{folder}/main.py"
    main = fresh_main()
    main.__file__ = sys.argv[0] = sys.orig_argv[1] = path
    code = 0
    try:
        text = source.decode("utf-8", "surrogatepass")
        with contextlib.suppress(OSError):  # an earlier program filled the disk: only few need the file
            write_source(text, path)
        execute(text, path, main.__dict__)
    except SystemExit as request:
        code = exit_code(request.code)
    except BaseException as error:  # noqa: BLE001 - as the interpreter itself does
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        trace = trace.tb_next if trace else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 1
    del main
    leave(code)


def exit_code(asked: object) -> int:
    """Return the exit code that CPython makes of the argument of ``sys.exit``."""
    if asked is None:
        return 0
    if isinstance(asked, int):
        return asked & 0xFF
    print(asked, file=sys.stderr)
    return 1


def leave(code: int) -> None:
    """End as CPython does, but without tearing modules down, which would copy every page of the runner."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    flushed = flush()
    sys.modules.pop("__main__", None)
    gc.collect()
    os._exit(code if flush() and flushed else code or 120)


def flush() -> bool:
    """Flush the program's streams; return False on failure, which CPython reports as exit code 120."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except Exception:  # noqa: BLE001 - the program may have replaced its streams by anything
        return False
    return True


def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Print a traceback as CPython does, with the program's lines, which are in no file."""
    traceback.print_exception(kind, error, trace)


def run_argv(joined: bytes) -> None:
    """Replace this process by the command; like a shell, exit with 127 if it is not found, else 126 on failure."""
    arguments = joined.split(b"\0")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        os.write(2, b"%s: %s\n" % (arguments[0], os.strerror(error.errno or 0).encode()))
        os._exit(127 if error.errno == errno.ENOENT else 126)
