"""Every flag of a container and of bubblewrap, asserted without starting either (R1)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from envgym.errors import UserError
from envgym.sandbox.interface import Limits
from envgym_sandboxes.bubblewrap.flags import bwrap_command
from envgym_sandboxes.docker.flags import container_config
from envgym_sandboxes.docker.image import pinned_image
from envgym_sandboxes.inside import seccomp
from envgym_sandboxes.interpreter import Interpreter

LIMITS = Limits(memory_bytes=100 * 2**20, disk_bytes=4 * 2**20, processes=10, open_files=80, cpus=0.5)
CONFIG = container_config(LIMITS, image="image", python="/opt/bin/python3", labels={"a": "b"})
HOST = CONFIG["HostConfig"]


def test_container_has_no_network_rights_or_writable_root() -> None:
    assert HOST["NetworkMode"] == "none"
    assert CONFIG["NetworkDisabled"] is True
    assert HOST["CapDrop"] == ["ALL"]
    assert HOST["CapAdd"] == ["KILL", "SETGID", "SETUID"]
    assert HOST["SecurityOpt"] == ["no-new-privileges:true"], "and so Docker's seccomp profile is kept"
    assert HOST["ReadonlyRootfs"] is True
    assert HOST["IpcMode"] == HOST["CgroupnsMode"] == "private"


def test_container_is_never_privileged_and_mounts_nothing_of_the_machine() -> None:
    assert HOST["Privileged"] is False
    assert not {"Binds", "Mounts", "Devices", "VolumesFrom", "PidMode", "UsernsMode"} & set(HOST)
    assert "docker.sock" not in json.dumps(CONFIG)


def test_container_limits() -> None:
    assert HOST["Memory"] == HOST["MemorySwap"] == 100 * 2**20
    assert HOST["PidsLimit"] == 12
    assert HOST["NanoCpus"] == 500_000_000
    ulimits = {entry["Name"]: (entry["Soft"], entry["Hard"]) for entry in HOST["Ulimits"]}
    assert ulimits["core"] == (0, 0)
    assert ulimits["nofile"] == (80, 80)
    assert "fsize" in ulimits


def test_writable_folders_are_small_and_carry_no_rights() -> None:
    folders = dict(HOST["Tmpfs"])
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(folders.pop("/dev/mqueue").split(","))
    assert set(folders) == {"/work", "/program", "/tmp", "/dev/shm"}
    for options in folders.values():
        assert {"nosuid", "nodev", f"size={4 * 2**20}"} <= set(options.split(","))
        assert re.search(r"nr_inodes=\d+", options)


def test_the_filter_is_in_effect_before_the_runner_starts() -> None:
    """The first program of a container is the one that installs the filter and becomes the runner."""
    python, *_, source = CONFIG["Cmd"][:5]
    assert python == CONFIG["Cmd"][5] == "/opt/bin/python3"
    assert source.rstrip().endswith("enter(sys.argv[1:])")
    assert max(map(len, CONFIG["Cmd"])) < 2**17, "the kernel's limit on one argument"


def test_container_ends_with_its_channel_and_leaves_nothing() -> None:
    assert HOST["Init"] is True
    assert HOST["AutoRemove"] is True
    assert HOST["LogConfig"]["Type"] == "none"
    assert CONFIG["StdinOnce"] is True
    assert CONFIG["Labels"] == {"a": "b"}
    assert "RestartPolicy" not in HOST


def test_program_user_is_not_root_and_runtime_is_configurable() -> None:
    assert json.loads(CONFIG["Cmd"][-1])["uid"] > 0
    assert "Runtime" not in HOST
    runsc = container_config(LIMITS, image="i", python="/p/python", labels={}, runtime="runsc")
    assert runsc["HostConfig"]["Runtime"] == "runsc"


@pytest.mark.parametrize("reference", ["python:3.12", "python", "python@sha256:abc", "sha256:" + "g" * 64])
def test_an_image_without_a_digest_is_refused(reference: str) -> None:
    with pytest.raises(UserError, match="not pinned"):
        pinned_image(None, reference, "/usr/bin/python3")


INTERPRETER = Interpreter(
    python="/p/bin/python3",
    site="/p/lib/site-packages",
    trees={path: Path(path) for path in ("/p/bin/python3", "/p/lib", "/p/lib/site-packages/numpy")},
)


@pytest.mark.parametrize("as_root", [True, False])
def test_bubblewrap_flags(as_root: bool) -> None:
    command = bwrap_command(LIMITS, INTERPRETER, [(Path("/group"), "/sys/fs/cgroup")], 7, as_root=as_root)
    flags = command[: command.index("--")]
    assert {f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup")} <= set(flags)
    assert {"--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"} <= set(flags)
    assert flags[flags.index("--cap-drop") + 1] == "ALL"
    assert flags[flags.index("--seccomp") + 1] == "7"
    assert not {"--bind", "--dev-bind", "--share-net"} & set(flags)
    assert flags.count("--tmpfs") == 5
    assert flags[flags.index("--tmpfs") - 0 : flags.index("--tmpfs") + 2] == [
        "--tmpfs",
        "/p/lib/site-packages",
    ]
    remounted = [flags[at + 1] for at, flag in enumerate(flags) if flag == "--remount-ro"]
    assert remounted == ["/p/lib/site-packages", "/dev", "/"]
    granted = [flags[at + 1] for at, flag in enumerate(flags) if flag == "--cap-add"]
    assert granted == (["CAP_KILL", "CAP_SETGID", "CAP_SETUID"] if as_root else [])
    assert ("--unshare-user" in flags) is not as_root


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_is_a_whole_program_whose_jumps_stay_inside(machine: str) -> None:
    program = list(seccomp._INSTRUCTION.iter_unpack(seccomp.filter_program(machine)))
    assert len(program) < 4096
    for at, (code, true, false, _) in enumerate(program):
        if code & 0x07 == 0x05:
            assert at + 1 + max(true, false) < len(program)
    assert program[-1] == (0x06, 0, 0, 0x7FFF0000)


def test_filter_for_an_unknown_processor_is_refused() -> None:
    with pytest.raises(OSError, match="pdp11"):
        seccomp.filter_program("pdp11")
