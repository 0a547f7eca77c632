"""Simulated training: the real loop and real episodes, in the time that the rates say."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Adder

from envgym.errors import UserError
from envgym.policies.scripted import Expert, RandomPolicy
from envgym.records import Message, Task, VersionSpan
from envgym.rollout.episode import rollout
from envgym.runs.progress import Reporter
from envgym.runs.simulation import SimulatedLoad
from envgym_trainers.stages.paced import Pace, paced
from envgym_trainers.stages.rl import ReinforcementStage
from envgym_trainers.stages.sft import SupervisedStage

Cli = Callable[..., int]


class Slow(Adder):
    """Each episode takes a while to begin, as one with a sandbox does."""

    async def start(self, task: Task) -> None:
        await super().start(task)
        await asyncio.sleep(0.1)


def _recipe(staleness: int, **values: Any) -> dict[str, Any]:
    return {
        "mix": [{"env": f"{__name__}:Slow"}],
        "groups": 2,
        "group_size": 2,
        "objective": {"name": "grpo"},
        "reproducible": False,
        "asynchronous": {"max_staleness": staleness},
        "evaluate": {"tasks": 1},
        **values,
    }


async def _simulate(staleness: int, recipe: dict[str, Any] | None = None, **load: Any) -> dict[str, Any]:
    stage = ReinforcementStage(**_recipe(staleness, **(recipe or {})))
    chosen = SimulatedLoad(**{"tokens_per_second": 1e6, "step_seconds": 0.2, "steps": 5, **load})
    with Reporter(live=False) as reporter:
        return await stage.simulate(chosen, reporter)


class _Instant(selectors.DefaultSelector):
    """Waits for nothing: the time that would be waited is added to ``now``."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


def _in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` in an event loop whose clock goes on by itself."""

    def make() -> asyncio.AbstractEventLoop:
        selector = _Instant()
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = lambda: selector.now  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(work)


async def _timed(pace: Pace, *tokens: int) -> list[float]:
    """Sample so many tokens at once; return the seconds that each took."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def sample(count: int) -> float:
        await pace.sample(count)
        return loop.time() - began

    return list(await asyncio.gather(*map(sample, tokens)))


def test_an_engine_is_shared_by_all_who_sample() -> None:
    """100 tokens a second: alone, 10 take 0.1 s. Of two at once, 10 take 0.2 s, and 20 then 0.1 s more."""

    async def run() -> None:
        pace = Pace(100)
        assert await _timed(pace, 10) == pytest.approx([0.1])
        assert await _timed(pace, 10, 20) == pytest.approx([0.2, 0.3])
        assert pace.tokens == 40
        assert pace.seconds == pytest.approx(0.6)
        assert await _timed(Pace(1e6, each=100), 10, 20) == pytest.approx([0.1, 0.2])

    _in_virtual_time(run())


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_no_token_is_lost_or_sampled_too_fast(arrivals: list[tuple[int, int]]) -> None:
    """However conversations come and go: an engine that is never idle takes the time of all tokens, exactly."""

    async def run() -> None:
        loop, pace = asyncio.get_running_loop(), Pace(10)

        async def one(after: float, tokens: int) -> float:
            await asyncio.sleep(after)
            await pace.sample(tokens)
            return loop.time()

        busy = asyncio.create_task(pace.sample(50))  # nobody comes to an idle engine
        ends = await asyncio.gather(*(one(after / 10, tokens) for after, tokens in arrivals))
        await busy
        total = 50 + sum(tokens for _, tokens in arrivals)
        assert loop.time() == pytest.approx(total / 10, abs=1e-6)
        assert all(end >= (after + tokens) / 10 for end, (after, tokens) in zip(ends, arrivals, strict=True))

    _in_virtual_time(run())


def test_one_who_gives_up_leaves_the_engine_to_the_others() -> None:
    """Half of 0.1 s at half the rate, then the rest of the 10 tokens at the whole."""

    async def run() -> None:
        pace, loop = Pace(100), asyncio.get_running_loop()
        given_up = asyncio.create_task(pace.sample(10**6))
        staying = asyncio.create_task(pace.sample(10))
        await asyncio.sleep(0.1)
        given_up.cancel()
        await staying
        assert pace.sampling == 0
        assert loop.time() == pytest.approx(0.15)

    _in_virtual_time(run())


def test_new_weights_in_mid_turn_are_told_in_spans() -> None:
    async def run() -> None:
        pace = Pace(1000)
        sampling = asyncio.create_task(pace.sample(200))
        for version in (1, 2):
            await asyncio.sleep(0.05)
            pace.publish(version)
        assert await sampling == [VersionSpan(0, 50), VersionSpan(1, 50), VersionSpan(2, 100)]
        assert await pace.sample(5) == [VersionSpan(2, 5)]

    _in_virtual_time(run())


@pytest.mark.parametrize("player", [Expert(), RandomPolicy()])
async def test_a_paced_player_says_the_same_and_counts_its_tokens(player: Any) -> None:
    env, task = Adder(), Task(id="t", split="train", messages=(), reference=3)
    plain = await rollout(env, player, task, name="e", seed=1)
    slow = await rollout(env, paced(player, Pace(1e6, mean=7.0)), task, name="e", seed=1)
    assert slow.messages == plain.messages
    assert slow.sampled_tokens > 0


def test_the_length_of_a_turn_is_that_of_its_text_or_drawn() -> None:
    said = Message(role="assistant", content="x" * 80)
    assert Pace(1).length(said) == 20
    drawn = [Pace(1, mean=50.0, seed=seed).length(said) for seed in range(400)]
    assert sum(drawn) / 400 == pytest.approx(50, rel=0.2)


async def test_running_ahead_is_quicker_by_what_overlaps() -> None:
    """Episodes of 0.1 s beside learning of 0.2 s: in turns 0.3 s a step, at once 0.2 s."""
    turns, ahead = await _simulate(0), await _simulate(1)
    assert turns["seconds"] > 4 * 0.3
    assert turns["seconds"] > ahead["seconds"] > 4 * 0.2
    assert turns["staleness"] == {"0": 1.0}
    assert ahead["staleness"] == {"1": 1.0}
    assert turns["shares"]["trainer_waits"] > ahead["shares"]["trainer_waits"]
    assert turns["episodes"] == ahead["episodes"] == 16
    assert turns["episode_seconds"]["environment"] > 0.09
    assert 0 < ahead["in_flight"]["max"] <= 8


@pytest.mark.parametrize(
    ("load", "what"),
    [
        ({"tokens_per_second": 20.0}, lambda r: r["shares"]["trainer_waits"] > 0.5 and r["episodes"] == 8),
        ({"conversation_tokens_per_second": 4.0}, lambda r: r["episode_seconds"]["sampling"] > 0.2),
        ({"publish_seconds": 0.4}, lambda r: r["seconds"] > 1.2),
        ({"tokens_per_turn": 5000.0}, lambda r: r["tokens_per_second"] > 1000),
        ({"policy": "random"}, lambda r: r["tokens_per_second"] > 0),
    ],
)
async def test_every_rate_is_made_use_of(load: dict[str, Any], what: Callable[[dict[str, Any]], bool]) -> None:
    assert what(await _simulate(0, steps=3, **load))


async def test_groups_without_a_signal_are_replaced() -> None:
    dapo = {"objective": {"name": "dapo", "overlong": False}}
    all_kept = await _simulate(0, dapo, steps=4)
    half = await _simulate(0, dapo, steps=4, signal_share=0.5)
    assert all_kept["episodes"] == 12
    assert half["episodes"] > 12


async def test_a_stage_that_samples_nothing_cannot_be_simulated() -> None:
    stage = SupervisedStage(mix=[{"env": f"{__name__}:Slow"}])
    with Reporter(live=False) as reporter, pytest.raises(UserError, match="cannot be simulated"):
        await stage.simulate(SimulatedLoad(tokens_per_second=1.0, step_seconds=0.0, steps=2), reporter)


def test_the_command_prints_a_table_or_json(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(_recipe(1, mix=[{"env": "toys:Adder"}])))
    words = ["simulate", path, "--tokens-per-second", 1e6, "--step-seconds", 0.01, "--steps", 3]
    assert cli(*words) == 0
    assert "trainer waits" in capsys.readouterr().out
    assert cli(*words, "--json", "--set", "asynchronous.max_staleness=0") == 0
    assert json.loads(capsys.readouterr().out)["staleness"] == {"0": 1.0}
    assert not list(tmp_path.glob("runs*")), "nothing is written"
