"""Programs that look for a way out, or for what is not theirs (A11-A15)."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pytest

from envgym.sandbox.interface import Sandbox, Status

NETWORK = {
    "tcp": "socket.create_connection(('1.1.1.1', 80), 2)",
    "host gateway": "socket.create_connection(('172.17.0.1', 2375), 2)",
    "metadata": "socket.create_connection(('169.254.169.254', 80), 2)",
    "ipv6": "socket.create_connection(('2606:4700:4700::1111', 80), 2)",
    "dns": "socket.getaddrinfo('example.org', 80)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)",
}


@pytest.mark.parametrize("name", sorted(NETWORK))
async def test_a11_network_fails_fast(name: str, sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = await sandbox.run_python(f"import socket\n{NETWORK[name]}")
    assert result.status is Status.NONZERO
    assert "rror" in result.error_text
    assert time.monotonic() - started < 2.0


async def test_a11_abstract_sockets_of_the_host_are_out_of_reach(sandbox: Sandbox) -> None:
    import socket

    name = f"\0envgym-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})"
        assert "ConnectionRefused" in (await sandbox.run_python(code)).error_text


async def test_a12_nothing_but_the_writable_folders_can_be_written(sandbox: Sandbox) -> None:
    code = """
import os, sys
written = []
for folder in ("/", "/etc", "/dev", "/proc", "/proc/sys/kernel", "/sys", "/sys/fs/cgroup", "/lib", "/bin",
               *sys.path[1:], os.path.dirname(sys.executable), os.path.dirname(os.__file__)):
    try:
        open(os.path.join(folder, "written"), "w").close()
        written.append(folder)
    except OSError:
        pass
for file in (sys.executable, os.__file__, "/etc/passwd", "/proc/sys/kernel/core_pattern"):
    try:
        os.close(os.open(file, os.O_WRONLY))
        written.append(file)
    except OSError:
        pass
print(written)
"""
    result = await sandbox.run_python(code)
    assert result.text == "[]\n", result


@pytest.mark.docker
async def test_a12_container_diff_is_empty(docker_sandbox_and_container: tuple[Sandbox, object]) -> None:
    sandbox, container = docker_sandbox_and_container
    before = container.diff()  # type: ignore[attr-defined]
    await sandbox.run_python("open('/tmp/x', 'w').write('x'); open('/work/y', 'w').write('y')")
    assert container.diff() == before  # type: ignore[attr-defined]
    # Docker's own doing: where it mounts the init.
    assert {change["Path"] for change in before or []} <= {"/sbin", "/sbin/docker-init"}


# Numbers on x86-64; every one needs a right that no program has, or is filtered.
CALLS = {
    "ptrace": (101, 16, 1),
    "mount": (165, 0, 0),
    "umount2": (166, 0, 0),
    "chroot": (161, 0),
    "pivot_root": (155, 0, 0),
    "unshare user": (272, 0x10000000),
    "unshare mount": (272, 0x00020000),
    "setns": (308, 0, 0),
    "keyctl": (250, 0, -3, 1),
    "add_key": (248, 0, 0, 0, 0, -3),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "open_by_handle_at": (304, -100, 0, 0),
    "init_module": (175, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0x89ABCDEF),
    "setuid root": (105, 0),
    "setgid root": (106, 0),
    "setgroups": (116, 0, 0),
    "sethostname": (170, 0, 0),
    "iopl": (172, 3),
    "userfaultfd": (323, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
async def test_a13_privileged_calls_are_refused(sandbox: Sandbox) -> None:
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, (number, *arguments) in {CALLS!r}.items():
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    # EINVAL: root is not even mapped into the namespace.
    refusals = (1, 13, 38, 22) if name.startswith("set") else (1, 13, 38)
    if result != -1 or ctypes.get_errno() not in refusals:
        print(name, result, ctypes.get_errno())
"""
    result = await sandbox.run_python(code)
    assert (result.status, result.text) == (Status.OK, ""), result


async def test_a13_devices_cannot_be_made(sandbox: Sandbox) -> None:
    result = await sandbox.run_python("import os, stat; os.mknod('d', stat.S_IFBLK | 0o600, os.makedev(8, 0))")
    assert "PermissionError" in result.error_text


async def test_a13_a_new_program_still_has_no_rights(sandbox: Sandbox) -> None:
    code = "print(open('/proc/self/status').read())"
    for result in (
        await sandbox.run_python(code),
        await sandbox.run_python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"),
    ):
        status = dict(line.split(":\t", 1) for line in result.text.splitlines() if ":\t" in line)
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert "0" not in status["Uid"].split() + status["Gid"].split()


async def test_a14_nothing_of_the_host_is_there(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVGYM_TEST_SECRET", "hunter2")
    code = """
import json, os
def read(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
everything = "".join(read(f"/proc/{pid}/{name}") for pid in os.listdir("/proc") if pid.isdigit()
                     for name in ("environ", "cmdline"))
print(json.dumps({
    "socket": [p for p in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(p)],
    "init": read("/proc/1/environ"), "secret": "hunter2" in everything, "environment": dict(os.environ),
    "home": os.path.exists("/home") and os.listdir("/home"), "host": os.uname().nodename,
}))
"""
    found = json.loads((await sandbox.run_python(code)).text)
    assert found["socket"] == []
    assert found["init"] == ""
    assert not found["secret"]
    assert set(found["environment"]) <= {
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "USER",
        "HOSTNAME",
        "LC_CTYPE",
        "PWD",
    }
    assert not found["home"]
    assert found["host"] == "sandbox"


async def test_a14_files_of_the_host_are_not_visible(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    paths = [str(secret), __file__, "/etc/shadow", "/etc/hostname", "/var/lib/docker"]
    code = f"import os; print([path for path in {paths!r} if os.path.exists(path)])"
    visible = (await sandbox.run_python(code)).text
    assert visible.strip() in ("[]", "['/etc/hostname']")  # Docker brings its own, which says "sandbox"


# The canary is given in halves, backwards, so that the search does not find itself.
SEARCH = """
import ctypes, os, re, sys
first, second = {first!r}[::-1], {second!r}
places = []
for top in ("/work", "/tmp", "/dev/shm", "/etc"):
    for folder, _, names in os.walk(top):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
                places += [name for at in re.finditer(first, data) if data[at.end():][:16][::-1] == second]
searched = 0
for line in open("/proc/self/maps"):
    area, rights, *rest = line.split()
    if "r" not in rights or "[v" in line:
        continue
    low, high = (int(x, 16) for x in area.split("-"))
    region = memoryview((ctypes.c_char * (high - low)).from_address(low)).cast("B")
    searched += len(region)
    for at in re.finditer(first, region):
        if bytes(region[at.end() : at.end() + 16])[::-1] == second:
            places.append(line)
print(searched > 2**20, places)
"""


async def test_a15_another_executions_canary_is_nowhere(sandbox: Sandbox) -> None:
    """Inputs, outputs, arguments and files of earlier executions are not in a later one's memory."""
    canary = os.urandom(16).hex().encode()
    echo = f"import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write({canary.decode()!r})"
    assert (await sandbox.run_python(echo, stdin=canary)).stdout == canary
    await sandbox.exec(["/bin/sh", "-c", f": {canary.decode()}"], stdin=canary)
    await sandbox.write({"canary": canary})
    assert await sandbox.read("canary") == canary
    await sandbox.run_python("import os; os.unlink('canary')")
    halves = {"first": canary[:16][::-1], "second": canary[16:][::-1]}
    result = await sandbox.run_python(SEARCH.format(**halves))
    assert (result.status, result.text) == (Status.OK, "True []\n"), result


async def test_a15_the_search_does_find_what_is_there(sandbox: Sandbox) -> None:
    canary = os.urandom(16).hex().encode()
    halves = {"first": canary[:16][::-1], "second": canary[16:][::-1]}
    planted = f"planted = {canary!r}\n" + SEARCH.format(**halves)
    assert "True ['" in (await sandbox.run_python(planted)).text
    await sandbox.write({"canary": canary})
    assert "canary" in (await sandbox.run_python(SEARCH.format(**halves))).text
