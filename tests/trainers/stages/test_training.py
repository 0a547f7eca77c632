"""Whole runs on a trivial environment: it must be learnt, only from its reward, and the same way every time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from toys import Letter

from envgym.env.chat_env import ChatEnv
from envgym.errors import PolicyError, RecipeError, SandboxError
from envgym.records import Task
from envgym.rollout.collector import TooManyFailures
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.engine.loop import SamplingLoop
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import ReinforcementStage

_TIMES = ("seconds", "tokens_per_second")


class Flaky(Letter):
    """Loses its sandbox in every third task, whoever plays it."""

    async def start(self, task: Task) -> None:
        if int(task.id.rpartition("-")[2]) % 3 == 0:
            raise SandboxError("gone")


class Broken(Letter):
    """Never begins."""

    async def start(self, task: Task) -> None:
        raise SandboxError("no daemon")


Train = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train(environment, {"name": "grpo"}, steps=…)``: the summary, with ``rows`` of metrics."""

    async def run(
        environment: type[ChatEnv], objective: dict[str, Any], *, folder: str = "run", **values: Any
    ) -> dict[str, Any]:
        recipe = ReinforcementRecipe.model_validate(
            {
                "mix": [{"env": f"{environment.__module__}:{environment.__name__}", "name": "toy"}],
                "model": {"path": str(model_folder), "context": 32},
                "sampling": {"max_tokens": 1, "concurrency": 64},
                "optimizer": {"learning_rate": 1e-2},
                "evaluate": {"tasks": 100},
                "groups": 8,
                "group_size": 8,
                "steps": 32,
                "checkpoint_every": 100,
                "objective": objective,
                **values,
            }
        )
        place = RunFolder.create(tmp_path / folder, recipe, recipe.seed)
        with Reporter(live=False) as reporter:
            summary = await ReinforcementStage(**recipe.model_dump()).run(place, reporter)
        assert summary is not None
        return {**summary, "rows": place.metrics()}

    return run


_GRPO = {"name": "grpo"}
_DAPO = {"name": "dapo", "overlong": False, "dynamic_sampling": {"max_attempts": 2, "at_cap": "train"}}

_PPO = {"name": "ppo"}
_DPO = {"name": "dpo"}
_ALL = pytest.mark.parametrize("objective", [_GRPO, _DAPO, _PPO, _DPO], ids=lambda o: o["name"])


@_ALL
async def test_a_trivial_environment_is_learnt(train: Train, objective: dict[str, Any]) -> None:
    """A random model does it by chance; a trained one, always."""
    overall = (await train(Letter, objective))["overall"]
    assert overall["sampled"]["before"]["mean"] < 0.65
    assert overall["sampled"]["after"]["mean"] > 0.9
    assert overall["greedy"]["after"]["mean"] > 0.9


@_ALL
async def test_random_rewards_teach_nothing(train: Train, objective: dict[str, Any]) -> None:
    """The same run with coin flips for rewards: whatever improved above came from the reward."""
    overall = (await train(Letter, objective, steps=24, reward={"control": "random"}))["overall"]
    assert overall["sampled"]["after"]["mean"] < 0.7


async def test_the_same_seed_gives_the_same_run(train: Train) -> None:
    first = (await train(Letter, _DAPO, folder="a", steps=4, updates=2))["rows"]
    second = (await train(Letter, _DAPO, folder="b", steps=4, updates=2))["rows"]
    other = (await train(Letter, _DAPO, folder="c", steps=4, updates=2, seed=1))["rows"]
    assert [row["step"] for row in first] == [1, 2, 3, 4]
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert one[name] == two[name] or any(time in name for time in _TIMES), name
    assert [row["loss"] for row in first] != [row["loss"] for row in other]


async def test_episodes_that_fail_are_counted_and_cost_nothing_else(train: Train) -> None:
    summary = await train(Flaky, _GRPO, steps=3, sampling={"max_tokens": 1, "retries": 0})
    rows = summary["rows"]
    assert sum(row["episodes_failed"] for row in rows) > 0
    assert all(row["samples"] == row["episodes"] - row["episodes_failed"] for row in rows)
    assert all(math.isfinite(row["loss"]) for row in rows)
    toy = summary["environments"]["toy"]["sampled"]
    lost = sum(n for ended in toy["ended"].values() for ending, n in ended.items() if ending.startswith("failed"))
    assert (toy["before"]["n"], lost) == (66, 68)


async def test_a_broken_environment_stops_the_run_and_says_why(train: Train) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await train(Broken, _GRPO)
    assert caught.group_contains(TooManyFailures, match="no daemon")


async def test_a_dead_engine_ends_the_run_at_once(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after as many failures as there were successes before, and with nothing measured from it."""
    real = SamplingLoop.sample

    async def sample(loop: SamplingLoop, row: Any) -> Any:
        if loop.version == 2:
            monkeypatch.setattr(loop.scheduler, "extend", None)
        return await real(loop, row)

    monkeypatch.setattr(SamplingLoop, "sample", sample)
    with pytest.raises(PolicyError, match="the engine stopped"):
        await asyncio.wait_for(train(Letter, _GRPO), 60)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": {"name": "grpo", "clip_hihg": 1}}, "clip_hihg"),
        ({"objective": {}}, "needs a name"),
    ],
)
async def test_a_wrong_objective_is_refused(train: Train, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        await train(Letter, **values)


def test_a_new_model_is_for_supervised_stages() -> None:
    with pytest.raises(ValueError, match="is for supervised stages"):
        ReinforcementRecipe.model_validate({"mix": [{"env": "e-v1"}], "model": {"new": {}}})
