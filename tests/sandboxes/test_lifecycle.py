"""Sandboxes end with their owners, fail loudly, are wiped, and leak nothing (A27-A30, A32, R8, R11)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from envgym.errors import SandboxError, UserError
from envgym.sandbox.interface import Backend, Limits, Sandbox, Status
from envgym.sandbox.selection import sandboxes
from envgym_sandboxes.process_identity import is_dead, this_process
from envgym_sandboxes.verify_limits import differences

OWNER = """
import asyncio, json, sys
from envgym.sandbox.selection import sandboxes
from envgym.sandbox.interface import Limits
async def main():
    backend = sandboxes.load(sys.argv[1])(**json.loads(sys.argv[3]))
    opened = [await backend.open(Limits(processes=31)) for _ in range(int(sys.argv[2]))]
    print("ready", *[f"{n}={v}" for n, v in getattr(backend, "_labels", {}).items()], flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def start_owner(name: str, count: int, **settings: Any) -> tuple[subprocess.Popen[str], list[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", OWNER, name, str(count), json.dumps(settings)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout is not None
    return owner, owner.stdout.readline().split()[1:]


def same_image(container: Any) -> dict[str, str]:
    """Settings that save the owner from finding out what this machine's image is called."""
    return {"image": container.image.id, "python": container.attrs["Config"]["Cmd"][0]}


def kill_owner(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait()
    assert owner.stdout is not None
    owner.stdout.close()


def listed(client: Any, labels: list[str]) -> list[Any]:
    # The client asks for each container once more, and one may go in between.
    return list(client.containers.list(all=True, filters={"label": labels}, ignore_removed=True))


def gone(probe: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while probe():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.docker
async def test_a27_container_killed_from_outside_is_a_sandbox_error(
    docker_sandbox_and_container: tuple[Sandbox, Any],
) -> None:
    sandbox, container = docker_sandbox_and_container
    running = asyncio.create_task(sandbox.run_python("import time; time.sleep(30)", wall_seconds=30))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(container.kill)
    killed = time.monotonic()
    with pytest.raises(SandboxError):
        await running
    assert time.monotonic() - killed < 2.0
    with pytest.raises(SandboxError):
        await sandbox.run_python("print(1)")


@pytest.mark.docker
async def test_a27_frozen_container_is_a_sandbox_error(
    docker_sandbox_and_container: tuple[Sandbox, Any],
) -> None:
    sandbox, container = docker_sandbox_and_container
    await asyncio.to_thread(container.pause)
    try:
        with pytest.raises(SandboxError, match="paused"):
            await sandbox.run_python("print(1)", wall_seconds=0.2)
    finally:
        await asyncio.to_thread(container.unpause)


@pytest.mark.filterwarnings("ignore:unclosed <socket", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.docker
async def test_a27_a_daemon_that_goes_away_is_a_sandbox_error_at_once(
    docker_sandbox_and_container: tuple[Sandbox, Any], gate: Any
) -> None:
    """Every connection to the daemon ends in the middle of an execution; the container ends by itself."""
    container = docker_sandbox_and_container[1]
    kind: Any = sandboxes.load("docker")
    backend = kind(**same_image(container))
    sandbox = await backend.open(Limits(processes=30))
    marks = [f"{name}={value}" for name, value in backend._labels.items()]
    running = asyncio.create_task(sandbox.run_python("import time; time.sleep(30)", wall_seconds=30))
    await asyncio.sleep(0.3)
    gate.close()
    died = time.monotonic()
    with pytest.raises(SandboxError, match="daemon"):
        await running
    assert time.monotonic() - died < 2.0
    with pytest.raises(SandboxError, match="Docker could not start"):
        await backend.open(Limits(processes=29))
    assert gone(lambda: listed(container.client, marks))
    await backend.close()
    gc.collect()


# The Docker client leaves a socket to the garbage collector when it cannot connect.
@pytest.mark.filterwarnings("ignore:unclosed <socket", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.docker
async def test_a27_missing_image_and_daemon_are_said(
    monkeypatch: pytest.MonkeyPatch, docker_backend: Backend, limits: Limits
) -> None:
    kind: Any = type(docker_backend)
    backend = kind(image="sha256:" + "0" * 64)
    with pytest.raises((SandboxError, UserError), match="not on this machine"):
        await backend.open(limits)
    await backend.close()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert "start one" in kind.unavailable()
    backend = kind()
    with pytest.raises(SandboxError):
        await backend.open(limits)
    await backend.close()
    gc.collect()


async def test_a27_bubblewrap_killed_from_outside_is_a_sandbox_error(
    bubblewrap_backend: Backend, limits: Limits
) -> None:
    async with await bubblewrap_backend.open(limits) as sandbox:
        running = asyncio.create_task(sandbox.run_python("import time; time.sleep(30)", wall_seconds=30))
        await asyncio.sleep(0.3)
        os.kill(sandbox._worker._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(SandboxError):
            await asyncio.wait_for(running, 2.0)


@pytest.mark.docker
async def test_a28_next_start_sweeps_exactly_the_dead_owners_containers(
    docker_backend: Backend, docker_sandbox_and_container: tuple[Sandbox, Any]
) -> None:
    import docker

    living, container = docker_sandbox_and_container
    client = docker.from_env()
    try:
        owner, labels = start_owner("docker", 16, capacity=16, **same_image(container))
        paused = listed(client, labels)
        assert len(paused) == 16
        neighbour = client.containers.create(container.image.id, ["nothing"])
        for one in paused:
            one.pause()  # or they would notice their owner's end and go by themselves
        kill_owner(owner)
        type(docker_backend).clean()  # a backend that starts beside this test may be quicker
        assert gone(lambda: listed(client, labels))
        assert (await living.run_python("print(1)")).text == "1\n"
        neighbour.remove()  # which fails if the sweep took it
    finally:
        client.close()


@pytest.mark.docker
async def test_r8_containers_end_by_themselves_when_their_owner_is_killed(
    docker_sandbox_and_container: tuple[Sandbox, Any],
) -> None:
    import docker

    client = docker.from_env()
    try:
        owner, labels = start_owner("docker", 1, **same_image(docker_sandbox_and_container[1]))
        assert len(listed(client, labels)) == 1
        kill_owner(owner)
        assert gone(lambda: listed(client, labels))
    finally:
        client.close()


def test_r8_bubblewrap_ends_with_its_owner_and_its_groups_are_swept(bubblewrap_backend: Backend) -> None:
    owner, _ = start_owner("bubblewrap", 2)
    groups = list(Path("/sys/fs/cgroup").glob(f"**/envgym-*~{owner.pid}~*"))
    assert groups
    pids = {int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()}
    kill_owner(owner)
    assert gone(lambda: any(Path(f"/proc/{pid}").exists() for pid in pids))
    type(bubblewrap_backend).clean()
    assert gone(lambda: type(bubblewrap_backend).clean() or any(group.exists() for group in groups))


@pytest.mark.docker
async def test_r8_sandbox_destroys_itself_after_its_total_time(limits: Limits) -> None:
    from envgym_sandboxes.docker import DockerBackend
    from envgym_sandboxes.inside import wire

    backend = DockerBackend()
    try:
        sandbox = await backend.open(limits)
        worker: Any = sandbox._worker
        await worker.channel.request(wire.OPEN, wall_seconds=0.2, grace_seconds=5.0)
        await asyncio.sleep(1.0)
        assert not worker.channel.alive()
    finally:
        await backend.close()


LEAVE = """
import os, socket, subprocess, sys, threading
from multiprocessing import shared_memory
for folder in ("/work", "/tmp", "/dev/shm"):
    os.makedirs(folder + "/deep/er", mode=0o700)
    for name in ("/file", "/deep/file", "/deep/er/.hidden"):
        with open(folder + name, "w") as file:
            file.write("secret")
    os.chmod(folder + "/deep/er", 0)
    os.symlink("/etc", folder + "/link")
memory = shared_memory.SharedMemory("left", create=True, size=4096)
from multiprocessing import resource_tracker
resource_tracker.unregister(memory._name, "shared_memory")
os.environ["LEFT"] = "secret"
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("left")
"""
FIND = """
import os
found = [name for folder in ("/work", "/tmp", "/dev/shm") for name in os.listdir(folder)]
found += [name for name in os.listdir("/dev/mqueue")] if os.path.exists("/dev/mqueue") else []
mine = {"1", str(os.getpid()), str(os.getppid())}
found += [pid for pid in os.listdir("/proc") if pid.isdigit() and pid not in mine]
found += [name for name in os.environ if name == "LEFT"]
for table in ("shm", "sem", "msg"):
    found += open("/proc/sysvipc/" + table).readlines()[1:]
for folder in ("/work", "/tmp", "/dev/shm"):
    found += [name for name in os.listxattr(folder)] + ([folder] if os.stat(folder).st_mtime else [])
print(found)
"""


@pytest.mark.docker
async def test_a30_second_episode_finds_nothing_of_the_first(limits: Limits) -> None:
    from envgym_sandboxes.docker import DockerBackend

    backend = DockerBackend(capacity=1)
    try:
        first = await backend.open(limits)
        worker = first._worker
        result = await first.run_python(LEAVE)
        assert (result.status, result.text) == (Status.OK, "left\n"), result
        await first.close()
        second = await backend.open(limits)
        assert second._worker is worker, "the container should have been reused"
        assert (await second.run_python(FIND)).text == "[]\n"
        await second.close()
    finally:
        await backend.close()


SYSV = "import ctypes; assert ctypes.CDLL(None).shmget(0x1234, 4096, 0o1666) >= 0"


@pytest.mark.docker
async def test_a30_what_cannot_be_wiped_costs_the_container_its_life(limits: Limits) -> None:
    from envgym_sandboxes.docker import DockerBackend

    backend = DockerBackend(capacity=1)
    try:
        first = await backend.open(limits)
        worker = first._worker
        assert (await first.run_python(SYSV)).status is Status.OK
        await first.close()
        second = await backend.open(limits)
        assert second._worker is not worker
        assert (await second.run_python("print(1)")).text == "1\n"
        await second.close()
    finally:
        await backend.close()


async def test_a29_twice_the_capacity_hostile_and_benign_do_not_mix(backend: Backend, limits: Limits) -> None:
    hostile = [
        "while True: pass",
        "import os\nwhile True: os.fork()",
        "print('x' * 10**7)",
        "raise SystemExit(9)",
    ]

    async def benign(number: int) -> bool:
        async with await backend.open(limits) as sandbox:
            await sandbox.write({"mine": str(number).encode()})
            result = await sandbox.run_python("print(open('mine').read(), input())", stdin=b"%d" % number)
            return result.text == f"{number} {number}\n"

    async def attack(code: str) -> Status:
        async with await backend.open(limits) as sandbox:
            return (await sandbox.run_python(code, wall_seconds=0.5)).status

    outcomes = await asyncio.gather(*(benign(n) for n in range(6)), *(attack(code) for code in hostile))
    assert outcomes[:6] == [True] * 6
    assert Status.OK not in outcomes[6:]


async def test_a32_cancelling_an_execution_leaks_nothing_and_the_next_sandbox_works(
    backend: Backend, limits: Limits
) -> None:
    for delay in (0.0, 0.01, 0.2):
        sandbox = await backend.open(limits)
        running = asyncio.create_task(sandbox.run_python("import time; time.sleep(60)", wall_seconds=60))
        await asyncio.sleep(delay)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        if delay:
            with pytest.raises(SandboxError, match="interrupted"):
                await sandbox.run_python("print(1)")
        closing = asyncio.create_task(sandbox.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await sandbox.close()
    async with await backend.open(limits) as sandbox:
        assert (await sandbox.run_python("print(1)")).text == "1\n"


@pytest.mark.docker
async def test_a32_cancelled_starts_leave_no_container(limits: Limits) -> None:
    import docker

    from envgym_sandboxes.docker import DockerBackend

    backend = DockerBackend(capacity=2)
    client = docker.from_env()
    labels = [f"{name}={value}" for name, value in backend._labels.items()]
    try:
        for delay in (0.0, 0.1, 0.3):
            opening = asyncio.create_task(backend.open(limits))
            await asyncio.sleep(delay)
            opening.cancel()
            outcome = (await asyncio.gather(opening, return_exceptions=True))[0]
            if isinstance(outcome, Sandbox):
                await outcome.close()
        assert len(listed(client, labels)) <= 2
    finally:
        await backend.close()
        assert gone(lambda: listed(client, labels))
        client.close()


async def test_closed_sandbox_and_closed_backend_refuse(backend: Backend, limits: Limits) -> None:
    sandbox = await backend.open(limits)
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        await sandbox.run_python("print(1)")


async def test_calls_within_one_sandbox_take_turns_and_say_how_long_they_waited(sandbox: Sandbox) -> None:
    slow = asyncio.create_task(sandbox.run_python("import time; time.sleep(0.5); print('slow')"))
    await asyncio.sleep(0.05)
    quick = await sandbox.run_python("print('quick')", wall_seconds=0.4)
    assert (quick.status, quick.text) == (Status.OK, "quick\n")
    assert quick.queue_seconds > 0.2 > quick.run_seconds
    assert (await slow).text == "slow\n"


def test_owners_death_is_recognised() -> None:
    me = this_process()
    assert not is_dead(me)
    place, start = me.rpartition("/")[0].rpartition("/")[0], me.rpartition("/")[2]
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_dead(f"{place}/{child.pid}/{start}")
    assert is_dead(f"{place}/{os.getpid()}/1"), "the number was used again by another process"
    assert not is_dead(f"elsewhere/1/{child.pid}/1"), "another machine's owner is not ours to judge"
    assert not is_dead("nonsense")


FACTS: dict[str, Any] = {
    "uid": [61000] * 3,
    "gid": [61000] * 3,
    "groups": [],
    "capabilities": 0,
    "no_new_privs": "1",
    "seccomp": "2",
    "memory": [str(2**28)],
    "swap": ["0"],
    "memory_and_swap": None,
    "processes": ["66"],
    "cpus": ["100000", "100000"],
    "folders": {"/work": 2**25},
    "files": [256, 256],
    "core": [0, 0],
    "file_size": [2**25, 2**25],
    "root_writable": False,
    "writable": ["/work"],
    "interfaces": ["lo"],
}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("memory", None),
        ("memory", ["max"]),
        ("swap", ["max"]),
        ("processes", ["max"]),
        ("cpus", ["max", "100000"]),
        ("cpus", None),
        ("files", [1024, 1024]),
        ("capabilities", 1),
        ("no_new_privs", "0"),
        ("seccomp", "0"),
        ("uid", [0, 0, 0]),
        ("groups", [0]),
        ("root_writable", True),
        ("writable", ["/work", "/dev/mqueue"]),
        ("interfaces", ["lo", "eth0"]),
        ("folders", {"/work": 2**40}),
        ("folders", {"/work": 0}),
        ("folders", {"/work": None}),
    ],
)
def test_r11_a_limit_that_does_not_hold_is_found(name: str, found: object) -> None:
    assert list(differences(FACTS, Limits(), 2)) == []
    assert list(differences({**FACTS, name: found}, Limits(), 2))


@pytest.mark.docker
async def test_r11_a_limit_that_does_not_hold_refuses_to_open(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, docker_backend: Backend
) -> None:
    from envgym_sandboxes.docker import DockerBackend

    launch = sys.modules["envgym_sandboxes.docker.launch"]
    real = launch.container_config

    def forgetful(*arguments: Any, **settings: Any) -> dict[str, Any]:
        config = real(*arguments, **settings)
        del config["HostConfig"]["PidsLimit"]
        return config

    monkeypatch.setattr(launch, "container_config", forgetful)
    backend = DockerBackend()
    with pytest.raises(SandboxError, match="processes is"):
        await backend.open(limits)
    await backend.close()
