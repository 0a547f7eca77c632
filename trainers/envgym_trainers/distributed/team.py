"""The processes of a run: the first leads, the others follow.

The leader has the environments, the engine and the run's folder. It says what is to be done, hands out the units,
and does its own share; every process then makes the same collective calls in the same order. What they say to each
other goes over connections of its own on the CPU, where waiting takes no time limit: followers wait while the
leader samples.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from envgym.errors import EnvgymError
from envgym.runs.processes import ProcessPlace
from envgym_trainers.batch import Sample, Unit, as_units
from envgym_trainers.distributed.balance import deal
from envgym_trainers.distributed.messages import Order, decode, encode

__all__ = ["ALONE", "ProcessLost", "Team"]

T = TypeVar("T")

_END = "end"
_LEADER = 0


class ProcessLost(EnvgymError):
    """Another process of the run ended in the middle of it, so that none can go on."""


class Team:
    """The processes of a run, as one of them sees the others. A process by itself leads nobody.

    Args:
        place: of this process.
        mesh: of the devices of all processes; ``None`` for a process by itself.
    """

    def __init__(
        self, place: ProcessPlace, mesh: DeviceMesh | None, talk: Any = None, lifelines: Any = None
    ) -> None:
        self.rank = place.rank
        self.size = place.size
        self.local_size = place.local_size
        self.mesh = mesh
        self._local_rank = place.local_rank
        self._talk = talk
        self._lifelines = lifelines
        self.lost = threading.Event()
        """Set once another process is gone."""

    @property
    def leads(self) -> bool:
        """True in the process that has the environments; the only one leads, too."""
        return self.rank == _LEADER

    def hand_out(
        self, name: str, units: Sequence[Unit] = (), max_tokens: int = 1, **values: Any
    ) -> list[list[int]]:
        """Say to the followers what is to be done, and give each its share of the units.

        Args:
            name: what is to be done.
            units: to deal.
            max_tokens: see ``deal``.
            values: JSON values for every follower.

        Returns:
            the indices of the units of each process.
        """
        shares = deal(units, max_tokens, self.size)
        self.take_device()
        for rank in range(1, self.size):
            self._send(rank, Order(name=name, values=values, units=[units[i] for i in shares[rank]]))
        return shares

    def end(self) -> None:
        """Say to the followers that this was all, until something else begins."""
        self.hand_out(_END)

    def orders(self) -> Iterator[Order]:
        """Yield what the leader says until it says that this was all."""
        while (order := self._receive(_LEADER)).name != _END:
            yield order

    def next_run(self) -> Order | None:
        """Return how the leader begins to learn, or ``None`` once it has ended."""
        try:
            return self._receive(_LEADER)
        except RuntimeError:
            return None

    def gather(self, samples: Sequence[Sample]) -> list[Sequence[Sample]]:
        """Return the samples of every process to the leader, by process; nothing to the others."""
        if not self.leads:
            self._send(_LEADER, Order(name="samples", units=as_units(samples)))
            return []
        others = (self._receive(rank) for rank in range(1, self.size))
        return [samples, *([sample for (sample,) in message.units] for message in others)]

    def exchange(self, value: T) -> list[T]:
        """Return the JSON values of all processes to each of them, by process."""
        if not self.leads:
            self._send(_LEADER, Order(name="value", values={"value": value}))
            found: list[T] = self._receive(_LEADER).values["all"]
            return found
        found = [value, *(self._receive(rank).values["value"] for rank in range(1, self.size))]
        for rank in range(1, self.size):
            self._send(rank, Order(name="values", values={"all": found}))
        return found

    def all(self, value: bool) -> bool:
        """Return whether ``value`` is true in all processes."""
        return all(self.exchange(value))

    def level(self, packs: Sequence[Sequence[Unit]]) -> list[Sequence[Unit]]:
        """Return the micro-batches, and empty ones up to the largest number that a process has.

        Every process must make the same collective calls, and each micro-batch makes some.
        """
        most = max(self.exchange(len(packs)))
        return [*packs, *([()] * (most - len(packs)))]

    def threads(self, count: int) -> int:
        """Return a process's part of the threads that its machine has for all of its processes."""
        return max(1, count // self.local_size)

    def take_device(self) -> None:
        """Make the process's device that of this thread; a new thread begins with the machine's first."""
        if self.mesh is not None and self.mesh.device_type == "cuda":
            torch.cuda.set_device(self._local_rank)

    def watch(self, lost: Callable[[int], None]) -> None:
        """Call ``lost`` with the rank of the first process that is gone, in a thread of its own.

        The leader watches all others, each of which watches the leader.
        """

        def wait(rank: int) -> None:
            try:
                dist.recv(torch.zeros(1), src=rank, group=self._lifelines)  # nobody ever sends anything
            except RuntimeError:
                if not self.lost.is_set():
                    self.lost.set()
                    lost(rank)

        for rank in range(1, self.size) if self.leads else [_LEADER]:
            threading.Thread(target=wait, args=(rank,), daemon=True, name=f"lifeline of {rank}").start()

    def _send(self, rank: int, message: Order) -> None:
        data = torch.frombuffer(bytearray(encode(message)), dtype=torch.uint8)
        dist.send(torch.tensor([len(data)]), dst=rank, group=self._talk)
        dist.send(data, dst=rank, group=self._talk)

    def _receive(self, rank: int) -> Order:
        length = torch.zeros(1, dtype=torch.int64)
        dist.recv(length, src=rank, group=self._talk)
        data = torch.empty(int(length), dtype=torch.uint8)
        dist.recv(data, src=rank, group=self._talk)
        return decode(data.numpy().tobytes())


ALONE = Team(ProcessPlace(), None)
"""A process by itself."""
