"""A model behind a server that nobody here wrote plays as in this process, whatever the way to it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
import transformers
from _breaking_proxy import BreakingProxy
from _server import running_server

from envgym.env.services import Services
from envgym.policies.interface import Policy, policies
from envgym.records import Trajectory
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry

PLAYED = 24
"""Tasks of each environment."""
ENVIRONMENTS: dict[str, dict[str, Any]] = {"math_problems": {}, "search_qa": {"documents": 60}}
SAMPLING: dict[str, Any] = {"temperature": 0.0, "max_tokens": 64}
MODEL = str(resources.files("envgym_trainers") / "assets" / "tiny")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``transformers serve`` with the built-in model; its base address."""
    start = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", MODEL]
    home = str(tmp_path_factory.mktemp("home"))
    environment = {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with running_server(
        lambda port: [*start, "--device", "cpu", "--host", "127.0.0.1", "--port", port],
        ready="/health",
        environment=environment,
    ) as address:
        yield address


async def _play(policy: Policy) -> dict[str, Trajectory]:
    entries = [MixEntry(env=name, settings=settings) for name, settings in ENVIRONMENTS.items()]
    async with Services() as services:
        collector = Collector(entries, policy, services, seed=0, concurrency=8)
        try:
            asked = [
                collector.episode(label, task, 0)
                for label in (entry.label for entry in entries)
                for task in collector.tasks(label, "held_out")[:PLAYED]
            ]
            played = await asyncio.gather(*asked)
        finally:
            await collector.close()
            await policy.close()
    return {f"{t.env}/{t.task.id}": t for t in played}


@pytest.fixture(scope="module")
def in_process() -> dict[str, Trajectory]:
    """The episodes of the model in this process, by task."""
    return asyncio.run(_play(policies.make("model", {"path": "builtin:tiny", **SAMPLING})))


def is_plain(trajectory: Trajectory, tokenizer: Any) -> bool:
    """Return whether the ids that were sampled are those of their text.

    A server reads the history as text: where the model spelt a word in other tokens, it goes on from others.
    """
    turns = [turn.tokens.completion_ids for turn in trajectory.turns if turn.tokens is not None]
    return all(tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False) == ids for ids in turns)


def said(trajectory: Trajectory) -> list[tuple[str, list[tuple[str, object]]]]:
    turns = [turn.action for turn in trajectory.turns]
    return [(action.content, [(c.name, c.arguments) for c in action.tool_calls]) for action in turns]


@pytest.mark.parametrize("broken", [0.0, 0.2])
async def test_a_served_model_plays_as_in_the_process(
    server: str, in_process: dict[str, Trajectory], broken: float
) -> None:
    """The same words, calls and rewards, episode by episode; with a fifth of the answers broken, none is lost."""
    proxy = BreakingProxy(server, broken, seed=0)
    async with proxy.serving() as url:
        served = await _play(policies.make("http", {"url": url, "model": MODEL, **SAMPLING}))
    assert [t.outcome.reason for t in served.values() if t.failed] == []
    assert served.keys() == in_process.keys()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    same = [name for name, here in in_process.items() if is_plain(here, tokenizer)]
    assert len(same) > 1.5 * PLAYED
    for name in same:
        here, there = in_process[name], served[name]
        assert (name, said(there), there.reward) == (name, said(here), here.reward)
    assert sum(len(served[name].turns) > 1 for name in same) > PLAYED
    assert bool(broken) == (proxy.counts["whole"] < proxy.counts.total())
