"""How fast episodes are collected without a model.

    python benchmarks/rollout.py [--only SECTION …] [--json]

The policy is the environment's scripted expert, which answers at once: what is measured is envgym. Everything
runs in one event loop in one thread; ``taskset -c 0`` pins it to one core. A *step* is one ``ChatEnv.astep``: the
action recorded, its tool calls parsed, run and answered, the next observation made; that of the last action also
concludes and scores the episode.

steps      Whole episodes, one after another. ``steps_per_s`` divides the steps by the time of *all* of it,
           ``areset`` and scoring included; ``collector_steps_per_s`` is the same through ``Collector``, with its
           deadlines, retries and clean-up, 64 at a time. Every episode has a task of its own, and no tool result
           is kept. ``loop_us``, the time of a fixed loop of Python, tells a slow machine from slow code.
flight     N episodes begun in one burst, all of them allowed in flight. Each makes ``--calls`` tool calls of 50 to
           500 ms, and in 1% of the episodes one call hangs until the tool's limit of ``--timeout`` seconds. The
           ideal is the longest episode's own sum of sleeps and limits: what an infinitely fast machine takes. The
           lag is how late a heartbeat of 5 ms comes; beats that are missed meanwhile count as late as they are.
memory     N episodes that all wait in a tool: growth of resident memory over N.
retriever  ``search_qa`` against a local HTTP retriever that answers after 200 ms; three searches an episode, one a
           turn. Episodes per second over those with one episode at a time, and processor time per episode.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import _sleeper
from _server import running_server

from envgym.env.answers import call, script
from envgym.env.registration import make
from envgym.env.services import Services
from envgym.env.shared_tools import ToolSettings
from envgym.policies.scripted import Expert, Player, Script
from envgym.records import Task, Trajectory
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry

_ENVIRONMENTS = ("math_problems-v1", "search_qa-v1")
_RETRIEVER = str(Path(__file__).with_name("_slow_retriever.py"))
_RETRIEVER_SECONDS = 0.2
_SEARCHES = 3
_BEAT = 0.005
_PAGE = os.sysconf("SC_PAGE_SIZE")

Figures = dict[str, Any]


def main() -> None:
    """Run the sections and print their figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", choices=list(_SECTIONS), default=list(_SECTIONS))
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    arguments.add_argument(
        "--rounds", type=int, default=5, help="repetitions of steps, of which the median counts"
    )
    arguments.add_argument("--episodes", type=int, default=2000, help="episodes of each round of steps")
    arguments.add_argument(
        "--in-flight", type=int, nargs="+", default=[2000, 20_000], help="for flight and memory"
    )
    arguments.add_argument("--calls", type=int, default=3, help="tool calls of each episode of flight")
    arguments.add_argument("--timeout", type=float, default=_sleeper.TIMEOUT, help="the tool's limit, in seconds")
    arguments.add_argument("--part", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.part:
        section, count = options.part.split(":")
        print(json.dumps(asyncio.run(_PARTS[section](int(count), options))))
        return
    figures = {section: _SECTIONS[section](options) for section in options.only}
    if options.json:
        print(json.dumps(figures))
    else:
        for section, found in figures.items():
            print(section)
            for name, values in found.items():
                print(f"  {name}: {json.dumps(values)}")


def steps(options: argparse.Namespace) -> Figures:
    """Return the step rates of each environment."""
    return {name: asyncio.run(_step_rates(name, options.rounds, options.episodes)) for name in _ENVIRONMENTS}


async def _step_rates(name: str, rounds: int, episodes: int) -> Figures:
    figures: dict[str, list[float]] = {}
    async with Services(tools=ToolSettings(cache_entries=0)) as services:
        for index in range(rounds):
            # Made before the time is taken, and new in each round.
            entry = MixEntry(env=name, settings={"task_seed": index, "size": episodes})
            found = {
                **await _one_after_another(name, entry, services),
                **await _through_a_collector(entry, services),
                "loop_us": _loop_us(),
            }
            for key, value in found.items():
                figures.setdefault(key, []).append(value)
    return {key: _summary(values) for key, values in figures.items()}


async def _one_after_another(name: str, entry: MixEntry, services: Services) -> Figures:
    env = make(name, services=services, **entry.settings)
    tasks = list(env.task_list("train"))
    scripts = [env.gold(task) for task in tasks]
    count, reset, tools, last = 0, 0.0, 0.0, 0.0
    now = time.perf_counter
    begun = now()
    for seed, (task, actions) in enumerate(zip(tasks, scripts, strict=True)):
        a = now()
        await env.areset(seed=seed, options={"task": task})
        b = now()
        reset += b - a
        for action in actions:
            a = b
            _, reward, terminated, _, _ = await env.astep(action)
            b = now()
            if terminated:
                last += b - a
            else:
                tools += b - a
        count += len(actions)
        assert (terminated, reward) == (True, 1.0)
    seconds = now() - begun
    await env.aclose()
    return {
        "steps_per_s": count / seconds,
        "episodes_per_s": len(tasks) / seconds,
        "reset_us": reset / len(tasks) * 1e6,
        "tool_step_us": tools / (count - len(tasks)) * 1e6,
        "last_step_us": last / len(tasks) * 1e6,
    }


async def _through_a_collector(entry: MixEntry, services: Services) -> Figures:
    collector = Collector([entry], Expert(), services)
    tasks = list(collector.tasks(entry.label, "train"))
    begun = time.perf_counter()
    played = await asyncio.gather(*(collector.episode(entry.label, task, 0) for task in tasks))
    seconds = time.perf_counter() - begun
    await collector.close()
    assert all(trajectory.reward == 1.0 for trajectory in played)
    count = sum(len(trajectory.turns) for trajectory in played)
    return {"collector_steps_per_s": count / seconds, "collector_episodes_per_s": len(tasks) / seconds}


def _loop_us() -> float:
    def loop() -> float:
        begun = time.perf_counter()
        for _ in range(1000):
            pass
        return (time.perf_counter() - begun) * 1e6

    return statistics.median(loop() for _ in range(200))


def flight(options: argparse.Namespace) -> Figures:
    """Return wall clock against the ideal, and the loop's lag, by number of episodes."""
    return {str(count): _in_a_process(f"flight:{count}", options) for count in options.in_flight}


async def _flight(count: int, options: argparse.Namespace) -> Figures:
    settings = {"size": count, "calls": options.calls}
    entry = MixEntry(env="_sleeper:Sleeper", settings=settings)
    async with Services() as services:
        collector = Collector([entry], Expert(), services, concurrency=count, retries=0, failure_limit=1.0)
        tasks = collector.tasks(entry.label, "train")
        ideal = max(sum(_seconds(task)) for task in tasks)
        waiting: list[int] = []
        lags, seconds, processor = await _beside_a_heartbeat(
            lambda: _all(collector, entry.label, tasks), lambda: waiting.append(collector.in_flight)
        )
        counts = dict(collector.counts)
        await collector.close()
    return {
        "wall_s": seconds,
        "ideal_s": ideal,
        "ratio": seconds / ideal,
        "processor_us_per_episode": processor / count * 1e6,
        "lag_ms": {"p50": _at(lags, 0.5) * 1e3, "p99": _at(lags, 0.99) * 1e3, "most": max(lags) * 1e3},
        "most_in_flight": max(waiting),
        "counts": counts,
    }


def _seconds(task: Task) -> list[float]:
    found = task.reference if isinstance(task.reference, list) else []
    return [_sleeper.TIMEOUT if s == _sleeper.HANGS else float(str(s)) for s in found]


async def _all(collector: Collector, label: str, tasks: Sequence[Task]) -> list[Trajectory]:
    return await asyncio.gather(*(collector.episode(label, task, 0) for task in tasks))


async def _beside_a_heartbeat(
    work: Callable[[], Awaitable[object]], beat: Callable[[], None]
) -> tuple[list[float], float, float]:
    """Return the lags of a heartbeat while ``work`` runs, its wall clock and processor time, all in seconds."""
    lags: list[float] = []

    async def heart() -> None:
        while True:
            due = time.perf_counter() + _BEAT
            await asyncio.sleep(_BEAT)
            late = max(0.0, time.perf_counter() - due)
            # The beats that should have come meanwhile are late as well.
            lags.extend(late - missed * _BEAT for missed in range(int(late / _BEAT) + 1))
            beat()

    beating = asyncio.create_task(heart())
    await asyncio.sleep(0.1)
    lags.clear()
    begun, processor = time.perf_counter(), time.process_time()
    await work()
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    beating.cancel()
    return lags, seconds, processor


def memory(options: argparse.Namespace) -> Figures:
    """Return resident memory per waiting episode, by number of episodes."""
    return {str(count): _in_a_process(f"memory:{count}", options) for count in options.in_flight}


async def _memory(count: int, options: argparse.Namespace) -> Figures:
    settings = {"size": count, "calls": 1, "least": 600.0, "most": 600.0, "hanging": 0.0}
    entry = MixEntry(env="_sleeper:Sleeper", settings=settings)
    async with Services() as services:
        collector = Collector([entry], Expert(), services, concurrency=count, retries=0, failure_limit=1.0)
        tasks = collector.tasks(entry.label, "train")
        await collector.episode(entry.label, _short(tasks[0]), 0)
        gc.collect()
        before = _resident()
        playing = asyncio.ensure_future(_all(collector, entry.label, tasks))
        while collector.in_flight < count:  # noqa: ASYNC110 - as whoever watches from outside
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        used = _resident() - before
        playing.cancel()
        await asyncio.wait({playing})
        await collector.close()
    return {"kb_per_episode": used / count / 1000, "mb": used / 1e6}


def _short(task: Task) -> Task:
    return Task(id="short", split=task.split, messages=task.messages, reference=[0.0])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def retriever(options: argparse.Namespace) -> Figures:
    """Return how many times as many episodes a second there are with many in flight as with one."""
    command = [sys.executable, _RETRIEVER]
    server = running_server(lambda port: [*command, port, str(_RETRIEVER_SECONDS)], ready="/")
    with server as url, tempfile.TemporaryDirectory() as folder:
        questions = Path(folder) / "questions.jsonl"
        rows = [{"question": f"Question {i}?", "answers": ["yes"]} for i in range(4000)]
        questions.write_text("\n".join(map(json.dumps, rows)))
        settings = {"retriever_url": f"{url}/retrieve", "question_file": str(questions), "retriever_seconds": 25.0}
        return asyncio.run(_retrieved(MixEntry(env="search_qa-v1", settings=settings)))


async def _retrieved(entry: MixEntry) -> Figures:
    policy = Script(*script([call("search", query=f"query {i}") for i in range(_SEARCHES)], "yes"))
    serial, _ = await _retrieve(entry, policy, 1, 8)
    figures: Figures = {"serial_episodes_per_s": serial}
    for concurrency in (8, 32, 128):
        rate, processor = await _retrieve(entry, policy, concurrency, 4 * concurrency)
        figures[str(concurrency)] = {
            "episodes_per_s": rate,
            "ratio": rate / serial,
            "processor_ms_per_episode": processor * 1e3,
        }
    return figures


async def _retrieve(entry: MixEntry, policy: Player, concurrency: int, count: int) -> tuple[float, float]:
    """Return episodes per second, and processor seconds per episode."""
    async with Services(tools=ToolSettings(cache_entries=0)) as services:
        collector = Collector([entry], policy, services, concurrency=concurrency, retries=0)
        tasks = collector.tasks(entry.label, "train")
        begun, processor = time.perf_counter(), time.process_time()
        played = await _all(collector, entry.label, [tasks[i] for i in range(count)])
        seconds, processor = time.perf_counter() - begun, time.process_time() - processor
        assert all(t.reward == 1.0 for t in played), [t.outcome.reason for t in played if t.failed]
        await collector.close()
    return count / seconds, processor / count


def _in_a_process(part: str, options: argparse.Namespace) -> Figures:
    """Run a part in a process of its own: memory that an earlier one used would count as free."""
    command = [sys.executable, __file__, "--part", part, "--calls", str(options.calls)]
    # The memory section's calls are all longer than any time-out that is asked for.
    timeout = str(options.timeout) if part.startswith("flight") else "3600"
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, "SLEEPER_TIMEOUT": timeout}
    )
    found: Figures = json.loads(done.stdout)
    return found


def _at(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _summary(values: Sequence[float]) -> Figures:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


_SECTIONS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "steps": steps,
    "flight": flight,
    "memory": memory,
    "retriever": retriever,
}
_PARTS: dict[str, Callable[[int, argparse.Namespace], Any]] = {"flight": _flight, "memory": _memory}


if __name__ == "__main__":
    main()
