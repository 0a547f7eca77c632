"""Programs that take memory, disk or the reader's patience (A5-A9)."""

from __future__ import annotations

import hashlib
import time
import tracemalloc

import pytest

from envgym.sandbox.interface import Backend, Limits, Sandbox, Status

MEMORY = {
    "bytearray": "blocks = []\nwhile True: blocks.append(bytearray(b'x' * 2**20))",
    "mmap": """
import mmap
area = mmap.mmap(-1, 2**30)
for at in range(0, 2**30, 4096):
    area[at] = 1
""",
    "two processes": """
import os, sys
child = os.fork()
block = bytearray(b"x" * (100 * 2**20))
if child:
    sys.exit(os.wait()[1] != 0)
""",
    "memory file": """
import os
target = os.memfd_create("x")
while True:
    for _ in range(7):
        os.write(target, b"x" * 2**20)
    target = os.memfd_create("x")
""",
}


@pytest.mark.parametrize("name", sorted(MEMORY))
async def test_a5_memory_beyond_the_limit_is_oom(name: str, sandbox: Sandbox) -> None:
    result = await sandbox.run_python(MEMORY[name])
    assert result.status is Status.OOM, result
    assert (await sandbox.run_python("print(1)")).text == "1\n"


async def test_a5_temporary_files_count_as_memory(backend: Backend) -> None:
    limits = Limits(memory_bytes=64 * 2**20, disk_bytes=64 * 2**20, processes=8)
    code = """
for folder in ("/tmp", "/dev/shm", "/work"):
    with open(folder + "/x", "wb", buffering=0) as file:
        for _ in range(60):
            file.write(b"x" * 2**20)
"""
    async with await backend.open(limits) as sandbox:
        result = await sandbox.run_python(code)
        assert result.status in (Status.OOM, Status.BROKE_SANDBOX)


async def test_a5_there_is_no_swap(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("print(open('/proc/self/status').read().split('VmSwap:')[1].split()[0])")
    assert result.text == "0\n"


DISK = {
    "fill": "with open('x', 'wb') as file:\n    while True: file.write(b'x' * 2**16)",
    "fill many": "for n in range(10**6):\n    with open(str(n), 'wb') as file: file.write(b'x' * 2**20)",
    "fill /dev/shm": "for n in range(9):\n    with open(f'/dev/shm/{n}', 'wb') as f: f.write(b'x' * 2**20)",
}


@pytest.mark.parametrize("name", sorted(DISK))
async def test_a6_full_disk_is_refused_and_cleared(name: str, backend: Backend, limits: Limits) -> None:
    async with await backend.open(limits) as sandbox:
        result = await sandbox.run_python(DISK[name])
        assert result.exit_code == 1
        assert "No space left" in result.error_text or "File too large" in result.error_text
        assert result.status in (Status.DISK_FULL, Status.NONZERO)
        if "many" in name or "shm" in name:
            assert result.status is Status.DISK_FULL
        started = time.monotonic()
    assert time.monotonic() - started < 2.0


async def test_a6_a_million_empty_files_are_refused_and_cleared(backend: Backend, limits: Limits) -> None:
    code = "for n in range(10**6): open(f'/tmp/{n}', 'w').close()"
    async with await backend.open(limits) as sandbox:
        result = await sandbox.run_python(code, wall_seconds=4.0)
        assert result.status in (Status.DISK_FULL, Status.OOM, Status.TIMEOUT)
        started = time.monotonic()
    assert time.monotonic() - started < 2.0


async def test_a6_deep_folders_are_cleared(backend: Backend, limits: Limits) -> None:
    code = """
import os
for _ in range(1000):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
    open("file", "w").close()
for _ in range(100):
    os.chmod(".", 0)
    break
"""
    async with await backend.open(limits) as sandbox:
        assert (await sandbox.run_python(code)).status is Status.OK
        started = time.monotonic()
    assert time.monotonic() - started < 2.0
    async with await backend.open(limits) as sandbox:
        assert (await sandbox.run_python("import os; print(os.listdir())")).text == "[]\n"


async def test_a6_sparse_giant_is_refused(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("open('x', 'wb').truncate(2**50)")
    assert result.status is Status.NONZERO
    assert "File too large" in result.error_text


FLOODS = {
    "lines": "while True: print('x' * 1000)",
    "one line": "import sys\nfor _ in range(1000): sys.stdout.write('x' * 10**6)",
    "both streams": "import os\nwhile True: os.write(1, b'o' * 65536); os.write(2, b'e' * 65536)",
    "binary": "import os\nwhile True: os.write(1, bytes(range(256)) * 256)",
}


@pytest.mark.parametrize("name", sorted(FLOODS))
async def test_a7_flood_is_cut_head_and_tail_kept(name: str, sandbox: Sandbox, limits: Limits) -> None:
    tracemalloc.start()
    result = await sandbox.run_python(FLOODS[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.status is Status.OUTPUT_LIMIT
    assert limits.output_bytes < len(result.stdout) < limits.output_bytes + 100
    assert b" bytes cut ...]" in result.stdout
    assert peak < 2 * 3 * limits.output_bytes + 2**20


async def test_a7_tail_is_the_real_tail(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("print('begin'); print('x' * 100_000); print('end')")
    assert result.status is Status.OUTPUT_LIMIT
    assert result.stdout.startswith(b"begin\nxxx")
    assert result.stdout.endswith(b"xxx\nend\n")


async def test_a7_strange_bytes_come_through_and_decode(sandbox: Sandbox) -> None:
    odd = b"\x00\xff\xfe\x1b[31mred\x1b[0m\xed\xa0\x80"
    result = await sandbox.run_python(f"import os; os.write(1, {odd!r}); os.write(2, {odd!r})")
    assert (result.status, result.stdout, result.stderr) == (Status.OK, odd, odd)
    assert "\ufffd" in result.text


async def test_a8_large_correct_output_arrives_whole(backend: Backend) -> None:
    code = "import random, sys\nrandom.seed(1)\nsys.stdout.buffer.write(random.randbytes(5 * 10**6))"
    limits = Limits(output_bytes=6 * 10**6, memory_bytes=128 * 2**20)
    async with await backend.open(limits) as sandbox:
        result = await sandbox.run_python(code)
        again = await sandbox.run_python(code)
    assert result.status is Status.OK
    assert len(result.stdout) == 5 * 10**6
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(again.stdout).digest()


async def test_a9_no_stdin_means_end_of_file(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("import sys; print(repr(sys.stdin.read()), sys.stdin.read() == '')")
    assert (result.status, result.text) == (Status.OK, "'' True\n")


async def test_a9_large_stdin_arrives_whole_unread_stdin_is_no_error(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 2**13
    code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    result = await sandbox.run_python(code, stdin=data)
    assert result.text.strip() == hashlib.sha256(data).hexdigest()
    assert (await sandbox.run_python("print(1)", stdin=data)).text == "1\n"
    cat = await sandbox.exec(["/bin/sh", "-c", "read line; echo $line"], stdin=b"first\nsecond\n")
    assert cat.text == "first\n"
