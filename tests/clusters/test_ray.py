"""Workers of Ray: the contract of clusters, deaths in mid-episode, nothing left behind, and every setting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from envgym.env.services import Services
from envgym.errors import UserError, WorkerLost
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.policies.scripted import Player, RandomPolicy
from envgym.records import Message, Observation, ToolCall, to_json
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry
from envgym.testing import ClusterContract
from envgym_clusters.ray import RayCluster


@pytest.fixture(autouse=True)
def _address(ray_address: str, request: pytest.FixtureRequest) -> None:
    if isinstance(request.instance, ClusterContract):
        type(request.instance).settings = {"workers": 2, "address": ray_address}


class TestRayCluster(ClusterContract):
    cluster = "ray"


@pytest.fixture
async def opened(ray_address: str) -> AsyncIterator[Callable[..., Any]]:
    """``await opened(services=None, **settings)``: a cluster with its workers."""
    made: list[tuple[RayCluster, Services]] = []

    async def open_(services: Services | None = None, **settings: Any) -> RayCluster:
        cluster = RayCluster(**{"workers": 2, "address": ray_address, **settings})
        made.append((cluster, services or Services()))
        await cluster.open(made[-1][1])
        return cluster

    yield open_
    for cluster, services in made:
        await cluster.close()
        await services.close()


def _collector(env: str, player: Player, cluster: RayCluster, **options: Any) -> Collector:
    entry = MixEntry(env=env, name="e", settings=options.pop("settings", {}))
    services = options.pop("services", None) or Services()
    return Collector([entry], player, services, cluster=cluster, **{"retries": 1, **options})


def _pids(cluster: RayCluster) -> list[int]:
    return [worker.pid for worker in cluster.workers]


class _Killer(Policy):
    """Acts at random, and kills a worker while the given number of episodes waits for it."""

    def __init__(self, kill: Callable[[], None], at: int) -> None:
        super().__init__()
        self._kill = kill
        self._left = at
        self.opened = self.closed = 0
        self._random = RandomPolicy()

    def open(self, tools: Any, seed: int) -> PolicySession:
        self.opened += 1
        return _Counted(self, self._random.open(tools, seed))

    def count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._kill()


class _Counted(PolicySession):
    def __init__(self, policy: _Killer, inner: PolicySession) -> None:
        self._policy = policy
        self._inner = inner

    async def act(self, observation: Observation) -> Completion:
        await asyncio.sleep(0.05)
        self._policy.count()
        return await self._inner.act(observation)

    async def close(self) -> None:
        self._policy.closed += 1


async def test_no_episode_is_lost_or_counted_twice_when_workers_are_killed(opened: Callable[..., Any]) -> None:
    """Four workers, two of which die by SIGKILL in mid-episode: every task and sample has one whole trajectory.

    It is the one that was played in the first attempt, or in the second.
    """
    cluster = await opened(workers=4)
    first = _pids(cluster)
    policy = _Killer(lambda: [os.kill(pid, signal.SIGKILL) for pid in first[:2]] and None, at=20)
    collector = _collector("math_problems", policy, cluster, seed=5)
    tasks = list(collector.tasks("e", "train"))[:4]
    groups = await asyncio.gather(*(collector.group("e", task, 8) for task in tasks))
    played = [t for group in groups for t in group.trajectories]
    lost = collector.counts["failed/WorkerLost"]
    assert [t.failed for t in played] == [False] * 32
    assert lost > 0
    assert collector.counts == {"episodes": 32 + lost, "failed": lost, "failed/WorkerLost": lost}
    assert policy.opened == policy.closed
    await collector.close()

    alone = Collector([MixEntry(env="math_problems", name="e")], RandomPolicy(), Services(), seed=5)
    whole = await asyncio.gather(*(alone.group("e", task, 8) for task in tasks))
    same = [to_json(a) == to_json(b) for g, h in zip(groups, whole, strict=True)
            for a, b in zip(g.trajectories, h.trajectories, strict=True)]  # fmt: skip
    assert same.count(False) <= lost
    await alone.close()

    await asyncio.gather(*(worker._reviving for worker in cluster.workers if worker._reviving))
    # Asked for, as the run need not notice the death of a worker that it did not wait for.
    alive = {(await worker._actor.hello.remote())[2] for worker in cluster.workers}
    assert len(alive & set(first)) == 2


async def test_workers_that_died_with_a_lost_one_get_no_episode(opened: Callable[..., Any]) -> None:
    """Once one worker is lost, another whose death nobody has noticed is not lent before it lives again."""
    cluster = await opened(workers=2)
    dead, lost = cluster.workers
    os.kill(dead.pid, signal.SIGKILL)
    lost._lost("its machine is gone")
    async with cluster.worker() as worker:
        assert '"unknown":true' in await worker.call("end", "none", "", seconds=60)
    assert dead.cause.startswith("worker ")
    assert [worker.busy for worker in cluster.workers] == [0, 0]


async def test_a_worker_that_was_started_anew_between_two_turns_has_lost_its_episode(
    opened: Callable[..., Any],
) -> None:
    """No call was under way when it died, so that nobody but the new worker knows."""
    cluster = await opened(workers=1)
    (worker,) = cluster.workers

    class Patient(Policy):
        killed = False

        def open(self, tools: Any, seed: int) -> PolicySession:
            return _Patience()

    class _Patience(PolicySession):
        async def act(self, observation: Observation) -> Completion:
            if not Patient.killed:
                Patient.killed = True
                os.kill(worker.pid, signal.SIGKILL)
                worker.ready = False
                await worker._revive(worker._node)
            return Completion(message=Message(role="assistant", content="1"))

    collector = _collector("math_problems", Patient(), cluster)
    trajectory = await collector.episode("e", collector.tasks("e", "train")[0], 0)
    assert not trajectory.failed
    assert collector.counts == {"episodes": 2, "failed": 1, "failed/WorkerLost": 1}
    await collector.close()


async def test_a_worker_that_died_too_often_is_missing_data_and_says_so(opened: Callable[..., Any]) -> None:
    cluster = await opened(workers=1, max_restarts=0)
    (pid,) = _pids(cluster)
    policy = _Killer(lambda: os.kill(pid, signal.SIGKILL), at=1)
    collector = _collector("math_problems", policy, cluster, retries=1)
    trajectory = await collector.episode("e", collector.tasks("e", "train")[0], 0)
    assert trajectory.outcome.reason.startswith("WorkerLost: no worker is left: each died 1 times")
    with pytest.raises(WorkerLost, match="cluster.max_restarts"):
        await cluster.worker().__aenter__()
    await collector.close()


async def test_workers_for_which_there_is_no_room_are_a_users_mistake(opened: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"^cluster: 0 of 2 workers started within 1 s; Ray has 8 cores: ask for"):
        await opened(cpus_per_worker=100.0, start_seconds=1.0)


async def test_one_process_uses_one_ray_at_a_time(opened: Callable[..., Any]) -> None:
    await opened(workers=1)
    with pytest.raises(UserError, match="is connected to a Ray already"):
        await opened(workers=1)


async def test_what_a_worker_cannot_do_is_told_as_the_users_mistake_that_it_is(opened: Callable[..., Any]) -> None:
    services = Services("toys:FullDisk")
    cluster = await opened(services, workers=1)
    collector = _collector("search_qa", _Coder(lambda: None), cluster, services=services)
    collector._entries["e"] = MixEntry(env="search_qa", name="e", settings={"no_such_setting": 1})
    with pytest.raises(UserError, match="no_such_setting"):
        await collector.episode("e", collector.tasks("e", "train")[0], 0)
    await collector.close()


@pytest.mark.parametrize("backend", [pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"])
async def test_what_a_killed_worker_had_in_sandboxes_is_gone(
    opened: Callable[..., Any], usable_backend: Callable[[str], Any], backend: str
) -> None:
    """A program runs in its sandbox when the worker dies; another worker plays the episode anew."""
    usable_backend(backend)
    services = Services(backend)
    cluster = await opened(services, workers=1)
    (pid,) = _pids(cluster)

    held: list[str] = []

    def kill() -> None:
        held.extend(_containers(pid) if backend == "docker" else _programs(pid))
        os.kill(pid, signal.SIGKILL)

    options: dict[str, Any] = {"services": services, "deadline": 240.0, "settings": {"run_python": True}}
    collector = _collector("code_sandbox", _Coder(kill), cluster, **options)
    trajectory = await collector.episode("e", collector.tasks("e", "train")[0], 0)
    assert not trajectory.failed, trajectory.outcome
    assert collector.counts["failed/WorkerLost"] == 1
    assert held
    assert not {left for left in held if _is_there(left, pid)}
    await collector.close()


class _Coder(Policy):
    """Runs a program, and kills the worker when it has seen the answer for the first time."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self.kill: Callable[[], None] | None = kill

    def open(self, tools: Any, seed: int) -> PolicySession:
        return _CoderSession(self)


class _CoderSession(PolicySession):
    def __init__(self, policy: _Coder) -> None:
        self._policy = policy
        self._turns = 0

    async def act(self, observation: Observation) -> Completion:
        self._turns += 1
        if self._turns == 1:
            call = ToolCall(name="run_python", arguments={"code": "print(6 * 7)"}, id="c0")
            return Completion(message=Message(role="assistant", content="", tool_calls=(call,)))
        assert "42" in observation.messages[0].content
        if self._policy.kill is not None:
            kill, self._policy.kill = self._policy.kill, None
            kill()
        return Completion(message=Message(role="assistant", content="done"))


def _containers(pid: int) -> list[str]:
    """Return the containers that a process of this machine owns."""
    import docker

    with contextlib.closing(docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": "org.envgym.owner"})
    return [row["Id"] for row in found if row["Labels"]["org.envgym.owner"].split("/")[-2] == str(pid)]


def _is_there(held: str, pid: int) -> bool:
    return Path(held).exists() if held.startswith("/proc/") else held in _containers(pid)


def _programs(pid: int) -> list[str]:
    """Return the processes below a process, as folders of ``/proc``."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for path in children for child in path.read_text().split()]
    return [f"/proc/{child}" for child in found] + [path for child in found for path in _programs(child)]


RECIPE = """
steps = 2
groups = 2
group_size = 4
[cluster]
workers = 4
[[mix]]
env = "math_problems-v1"
[model]
path = "builtin:tiny"
[sampling]
max_tokens = 32
[evaluate]
tasks = 2
"""


def test_a_recipe_trains_on_a_ray_of_its_own_as_in_one_process(tmp_path: Path) -> None:
    """Trajectories and weights are equal to the last bit, and neither processes nor folders are left."""
    (tmp_path / "r.toml").write_text(RECIPE)
    command = "from envgym.cli import main; main()"
    for name, options in (("ray", ["--cluster", "ray"]), ("here", ["--set", "cluster={}"])):
        run = subprocess.Popen(
            [sys.executable, "-c", command, "train", "r.toml", "--out", name, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, told = run.communicate()
        assert run.returncode == 0, told
        assert ("starting the workers of cluster 'ray'" in told) == (name == "ray")
        left = f"envgym-ray-{run.pid}-"
        assert list(Path("/tmp").glob(f"{left}*")) == []
        assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if left.encode() in _text(path)]
    for step in (1, 2):
        path = Path("trajectories") / f"step-{step:06d}.jsonl"
        assert (tmp_path / "ray" / path).read_bytes() == (tmp_path / "here" / path).read_bytes()
    weights = Path("checkpoints") / "step-000002" / "model" / "model.safetensors"
    assert (tmp_path / "ray" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()


def test_an_evaluation_on_a_ray_of_its_own_is_that_of_one_process() -> None:
    """Every score and count is the same, and so is the policy's draw."""
    command = [
        sys.executable,
        "-c",
        "from envgym.cli import main; main()",
        "eval",
        "--env",
        "math_problems,search_qa",
    ]
    command += ["--policy", "random", "--limit", "8", "--json"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    there = [*command, "--cluster", "ray", "--cluster-set", "workers=2"]
    found = [subprocess.run(c, env=paths, capture_output=True, text=True) for c in (command, there)]
    assert [run.returncode for run in found] == [0, 0], found[1].stderr
    assert found[0].stdout == found[1].stdout
    refused = subprocess.run([*command, "--cluster-set", "workers=2"], env=paths, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "settings need the cluster's name; allowed: ray" in refused.stderr


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
