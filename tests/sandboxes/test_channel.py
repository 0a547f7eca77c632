"""How an execution ended, told from what the runner saw, and Docker's frames taken apart."""

from __future__ import annotations

import signal
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.errors import SandboxError
from envgym.sandbox.interface import Status
from envgym_sandboxes.channel import Channel, RunnerReply
from envgym_sandboxes.docker.frames import Frames
from envgym_sandboxes.inside import wire


def reply(wait_status: int = 0, flags: int = 0, kept: int = 1, total: int = 1) -> RunnerReply:
    return RunnerReply(
        wait_status=wait_status,
        flags=flags,
        run_seconds=0.1,
        stdout=b"x" * kept,
        stderr=b"",
        stdout_total=total,
        stderr_total=0,
    )


EXIT_1 = 1 << 8
CASES = [
    (reply(), Status.OK),
    (reply(EXIT_1), Status.NONZERO),
    (reply(signal.SIGSEGV), Status.SIGNAL),
    (reply(signal.SIGKILL, wire.TIMED_OUT), Status.TIMEOUT),
    (reply(signal.SIGKILL, wire.OOM), Status.OOM),
    (reply(0, wire.OOM), Status.OK),  # a child was ended and the program coped with it
    (reply(0, wire.PIDS), Status.OK),
    (reply(0, wire.DISK), Status.OK),
    (reply(EXIT_1, wire.PIDS), Status.PIDS_LIMIT),
    (reply(EXIT_1, wire.DISK), Status.DISK_FULL),
    (reply(0, 0, kept=4, total=9), Status.OUTPUT_LIMIT),
    (reply(signal.SIGKILL, wire.TIMED_OUT, kept=4, total=9), Status.OUTPUT_LIMIT),
    (reply(signal.SIGKILL, wire.TIMED_OUT | wire.PIDS), Status.PIDS_LIMIT),
    (reply(0, wire.UNCLEAN), Status.BROKE_SANDBOX),
    (reply(137 << 8), Status.NONZERO),
]


@pytest.mark.parametrize(("given_reply", "status"), CASES)
def test_status_by_cause(given_reply: RunnerReply, status: Status) -> None:
    result = given_reply.result(0.5)
    assert (result.status, result.queue_seconds) == (status, 0.5)
    assert (result.exit_code is None) is (result.signal is not None)


def test_cut_is_visible_and_says_how_much() -> None:
    cut = reply(kept=5, total=12).result(0.0)
    assert cut.stdout == b"xxx\n[... 7 bytes cut ...]\nxx"


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))),
    st.lists(st.integers(1, 20), min_size=1),
)
def test_frames_arrive_in_any_pieces(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    stream = b"".join(struct.pack(">BxxxI", kind, len(data)) + data for kind, data in frames)
    decode = Frames()
    payload = b""
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        payload += decode(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert payload == b"".join(data for kind, data in frames if kind == 1)
    assert decode.said == b"".join(data for kind, data in frames if kind == 2)[-4096:]


async def test_a_vanished_runner_is_a_sandbox_error_at_once() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    assert channel.alive()
    theirs.close()
    assert not channel.alive()
    with pytest.raises(SandboxError):
        await channel.request(wire.OPEN, grace_seconds=5.0)
    channel.close()


async def test_a_silent_runner_is_given_up_and_never_used_again() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with pytest.raises(TimeoutError):
        await channel.request(wire.OPEN, grace_seconds=0.05)
    assert not channel.alive()
    channel.close()
    theirs.close()


def test_an_idle_runner_that_speaks_unasked_is_not_used() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.send(b"\0")
    assert not channel.alive()
    channel.close()
    theirs.close()
