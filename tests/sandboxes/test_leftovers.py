"""Whatever outlives a process is denied to a program, or gone before the next episode (A30)."""

from __future__ import annotations

import asyncio
import errno
import json
import platform
from collections.abc import Callable, Iterator

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox, Status

PRELUDE = """
import ctypes, json, os, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result in (-1, None):
        raise OSError(ctypes.get_errno(), "refused")
    return result
def stay(code):
    child = subprocess.Popen([sys.executable, "-c", code + "; print(flush=True); import time; time.sleep(1000)"],
                             start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
def table(name):
    return open("/proc/sysvipc/" + name).readlines()[1:]
def listed(folder, name):
    try:
        return [n for n in os.listdir(folder) if n == name]
    except OSError:
        return []
"""
KINDS = {
    "a message queue": (
        "checked(libc.mq_open(b'/left', os.O_CREAT | os.O_RDWR, 0o666, None))",
        "[q for q in [libc.mq_open(b'/left', os.O_RDWR)] if q >= 0]",
    ),
    "a name among the message queues": (
        "open('/dev/mqueue/left', 'w').close()",
        "listed('/dev/mqueue', 'left')",
    ),
    "shared memory": (
        "os.ftruncate(checked(libc.shm_open(b'/left', os.O_CREAT | os.O_RDWR, 0o666)), 4096)",
        "[m for m in [libc.shm_open(b'/left', os.O_RDWR, 0)] if m >= 0]",
    ),
    "a semaphore": (
        "checked(libc.sem_open(b'/left', os.O_CREAT, 0o666, 1) or None)",
        "listed('/dev/shm', 'sem.left')",
    ),
    "System V shared memory": ("checked(libc.shmget(0x1234, 4096, 0o1666))", "table('shm')"),
    "System V semaphores": ("checked(libc.semget(0x1234, 1, 0o1666))", "table('sem')"),
    "a System V message queue": ("checked(libc.msgget(0x1234, 0o1666))", "table('msg')"),
    "a key": (
        "checked(libc.syscall(248, b'user', b'left', b'secret', 6, -4))",
        "[k for k in [libc.syscall(250, 10, -4, b'user', b'left', 0)] if k >= 0]",
    ),
    "a key of the session": (
        "checked(libc.syscall(250, 1, b'left'))",
        "[k for k in [libc.syscall(249, b'user', b'left', None, -3)] if k >= 0]",
    ),
    "an abstract socket": (
        "stay(\"import socket; s = socket.socket(socket.AF_UNIX); s.bind(chr(0) + 'left'); s.listen()\")",
        "[l for l in open('/proc/net/unix') if l.endswith('@left\\n')]",
    ),
    "a listener": (
        "stay(\"import socket; s = socket.create_server(('127.0.0.1', 4321))\")",
        "open('/proc/net/tcp').readlines()[1:]",
    ),
    "a connection in its last minute": (
        "s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); "
        "d = s.accept()[0]; c.close(); d.close(); s.close()",
        "open('/proc/net/tcp').readlines()[1:]",
    ),
    "a process of its own session": (
        "stay('stayed_on = 1')",
        "[p for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()"
        " and b'yed_on = 1' in open(f'/proc/{p}/cmdline', 'rb').read()]",
    ),
    "a lock that a process holds": (
        'stay("import fcntl, os; f = open(os.__file__); fcntl.flock(f, fcntl.LOCK_EX)")',
        "[l for l in open('/proc/locks') if f':{os.stat(os.__file__).st_ino} ' in l]",
    ),
    "memory without a name": (
        "stay(\"import os; os.write(os.memfd_create('left'), b'secret')\")",
        "[p for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()"
        " and os.access(f'/proc/{p}/fd', 4)"
        " and any('left' in os.readlink(f'/proc/{p}/fd/{n}') for n in os.listdir(f'/proc/{p}/fd'))]",
    ),
    "a socket with a path": (
        "socket.socket(socket.AF_UNIX).bind('/tmp/left')",
        "listed('/tmp', 'left')",
    ),
    "a named pipe": ("os.mkfifo('/dev/shm/pipe')", "listed('/dev/shm', 'pipe')"),
    "a folder without rights": (
        "os.makedirs('left/deep'); os.chmod('left/deep', 0); os.chmod('left', 0)",
        "listed('/work', 'left')",
    ),
    "its own source": ("open('/program/left.py', 'w').close()", "listed('/program', 'left.py')"),
    "bytecode": (
        "os.mkdir('__pycache__'); open('__pycache__/left.pyc', 'w').close()",
        "listed('.', '__pycache__')",
    ),
    "the time of a folder": ("os.utime('/tmp')", "[t for t in [os.stat('/tmp').st_mtime] if t and not first]"),
    "an attribute of a folder": ("os.setxattr('/tmp', 'user.left', b'secret')", "os.listxattr('/tmp')"),
    "a job for later": (
        "os.makedirs('/var/spool/cron/crontabs', exist_ok=True); open('/var/spool/cron/crontabs/x', 'w').close()",
        "listed('/var/spool/cron/crontabs', 'x')",
    ),
    "a file where programs expect to write": ("open('/var/tmp/left', 'w').close()", "listed('/var/tmp', 'left')"),
    "a lock file": ("open('/run/lock/left', 'w').close()", "listed('/run/lock', 'left')"),
}
DENIED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOSYS, errno.EOPNOTSUPP}
"""Refusals: no right, no such call, or no such place."""
CALLS = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "mq_open": 240, "mq_unlink": 241,
    "mq_timedsend": 242, "mq_timedreceive": 243, "mq_notify": 244, "mq_getsetattr": 245, "add_key": 248,
    "request_key": 249, "keyctl": 250,
}  # fmt: skip
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")


def visit(names: list[str], first: bool) -> str:
    """A program that leaves each kind, if it is the ``first`` to come, and tells what it finds of each."""
    acts = "".join(
        f"try:\n    {KINDS[name][0]}\nexcept OSError as error:\n    denied[{name!r}] = error.errno\n"
        for name in names
        if first
    )
    found = "".join(f"found[{name!r}] = len({KINDS[name][1]})\n" for name in names)
    return f"{PRELUDE}first = {first}\ndenied, found = {{}}, {{}}\n{acts}{found}print(json.dumps([denied, found]))"


async def told(sandbox: Sandbox, names: list[str], *, first: bool) -> tuple[dict[str, int], dict[str, int]]:
    result = await sandbox.run_python(visit(names, first))
    assert result.status is Status.OK, result
    denied, found = json.loads(result.text)
    return denied, found


def check_first(denied: dict[str, int], found: dict[str, int]) -> None:
    """Each kind is refused, or there and found, which shows that the search works."""
    untold = {"the time of a folder"}
    for name, count in found.items():
        assert denied.get(name, errno.EPERM) in DENIED
        assert bool(count) is (name not in denied) or name in untold, (name, denied, found)


@pytest.fixture(scope="module")
def single(usable_backend: Callable[[str], type[Backend]]) -> Iterator[Backend]:
    """Docker with one container that serves every episode."""
    backend = usable_backend("docker")(capacity=1)
    yield backend
    asyncio.run(backend.close())


@X86
@pytest.mark.docker
@pytest.mark.parametrize("name", KINDS)
async def test_the_next_episode_of_a_container_finds_nothing(single: Backend, limits: Limits, name: str) -> None:
    async with await single.open(limits) as first:
        check_first(*await told(first, [name], first=True))
    async with await single.open(limits) as second:
        assert await told(second, [name], first=False) == ({}, {name: 0})


@X86
@pytest.mark.docker
async def test_a_container_of_one_use_finds_nothing(
    usable_backend: Callable[[str], type[Backend]], limits: Limits
) -> None:
    backend = usable_backend("docker")(reuse=False)
    try:
        await leave_and_look(backend, limits)
    finally:
        await backend.close()


@X86
async def test_the_next_namespaces_find_nothing(bubblewrap_backend: Backend, limits: Limits) -> None:
    await leave_and_look(bubblewrap_backend, limits)


async def leave_and_look(backend: Backend, limits: Limits) -> None:
    """Leave every kind at once; look in a sandbox beside it, and in one after it."""
    # A listener is in the table of connections, and a new folder has a time.
    names = [name for name in KINDS if name not in ("a listener", "the time of a folder")]
    async with await backend.open(limits) as first, await backend.open(limits) as beside:
        check_first(*await told(first, names, first=True))
        assert await told(beside, names, first=False) == ({}, dict.fromkeys(names, 0))
    async with await backend.open(limits) as after:
        assert await told(after, names, first=False) == ({}, dict.fromkeys(names, 0))


@X86
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_makes_what_outlives_a_process_is_denied(sandbox: Sandbox, name: str) -> None:
    code = f"{PRELUDE}print(libc.syscall({CALLS[name]}, 0, 0, 0, 0, 0), ctypes.get_errno())"
    assert (await sandbox.run_python(code)).text == f"-1 {errno.EPERM}\n"


async def test_a_socket_to_the_host_of_a_virtual_machine_is_denied(sandbox: Sandbox) -> None:
    code = "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"
    assert "PermissionError" in (await sandbox.run_python(code)).error_text


async def test_no_other_place_can_be_written(sandbox: Sandbox) -> None:
    """Every folder and file that the program's user could change, but for processes and devices."""
    code = """
import os, stat
found = set()
for top, folders, files in os.walk("/"):
    if top == "/":
        folders.remove("proc")
    for name in [".", *files]:
        path = os.path.join(top, name)
        kind = os.lstat(path).st_mode
        if not stat.S_ISLNK(kind) and not stat.S_ISCHR(kind) and os.access(path, os.W_OK):
            found.add(os.path.normpath(path))
print(sorted(found))
"""
    expected = ["/dev/shm", "/program", "/program/main.py", "/tmp", "/work"]
    assert (await sandbox.run_python(code)).text == f"{expected}\n"
