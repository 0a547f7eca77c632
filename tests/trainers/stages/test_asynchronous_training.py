"""Asynchronous training through the recipe, with a real model, engine and environments."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomli_w
from toys import Letter, numbered

from envgym.env.chat_env import ChatEnv
from envgym.errors import RecipeError, SandboxError
from envgym.records import Score, Split, Task, Trajectory
from envgym.rollout.collector import TooManyFailures
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.learner.learner import Learner
from envgym_trainers.learner.mismatch import EngineMismatch
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import load_model
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import ReinforcementStage

_GRPO = {"name": "grpo", "importance_cap": 2.0}


class Prose(ChatEnv):
    """Say anything, at length; a coin is thrown for it, so that every group has a signal."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return numbered(split, 64, *(f"say {i}" for i in range(64)))

    def score(self, trajectory: Trajectory) -> Score:
        value = float(trajectory.seed % 2)
        return Score(value=value, accuracy=value)


class Waiting(Prose):
    """The first training episode ends when so many others have begun."""

    others: ClassVar[int]
    patience: ClassVar[float]
    begun: ClassVar[int]
    enough: ClassVar[asyncio.Event]

    async def start(self, task: Task) -> None:
        if task.split != "train":
            return
        kind = type(self)
        kind.begun += 1
        if kind.begun == 1:
            try:
                await asyncio.wait_for(self.enough.wait(), self.patience)
            except TimeoutError:
                raise SandboxError("too few began meanwhile") from None
        elif kind.begun > self.others:
            self.enough.set()


class Broken(Prose):
    """Never begins."""

    async def start(self, task: Task) -> None:
        raise SandboxError("no daemon")


class Deaf(InProcessEngine):
    """Says that it took over the new weights, and did not."""

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        await super().update_weights(self.language_model, version)


class Served(InProcessEngine):
    """An engine with weights of its own, which it keeps elsewhere."""

    runs_model = False


def _path(kind: type) -> str:
    return f"{kind.__module__}:{kind.__name__}"


def _recipe(model_folder: Path, environment: type[ChatEnv], **values: Any) -> dict[str, Any]:
    return {
        "mix": [{"env": _path(environment), "name": "toy"}],
        "model": {"path": str(model_folder), "context": 128},
        "sampling": {"max_tokens": 48, "concurrency": 64},
        "optimizer": {"learning_rate": 1e-3},
        "evaluate": {"tasks": 1},
        "groups": 2,
        "group_size": 4,
        "steps": 8,
        "checkpoint_every": 100,
        "objective": _GRPO,
        "reproducible": False,
        "asynchronous": {"max_staleness": 2},
        "threads": 1,
        **values,
    }


Train = Callable[..., Coroutine[Any, Any, RunFolder]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train(environment, steps=…)``: the folder of a finished run."""
    count = itertools.count()

    async def run(environment: type[ChatEnv] = Prose, **values: Any) -> RunFolder:
        stage = ReinforcementStage(**_recipe(model_folder, environment, **values))
        folder = RunFolder.create(tmp_path / f"run-{next(count)}", stage.config, 0)
        with Reporter(live=False) as reporter:
            assert await stage.run(folder, reporter) is not None
        return folder

    return run


def _tokens(folder: RunFolder) -> list[Any]:
    steps = (row["step"] for row in folder.metrics())
    played = (t for step in steps for t in folder.trajectories(step))
    return [turn.tokens for t in played for turn in t.turns if turn.tokens]


async def test_a_trivial_environment_is_learnt_from_older_tokens(train: Train) -> None:
    folder = await train(
        Letter,
        sampling={"max_tokens": 1, "concurrency": 64},
        optimizer={"learning_rate": 1e-2},
        evaluate={"tasks": 100},
        groups=8,
        group_size=8,
        steps=32,
    )
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary["overall"]["sampled"]["before"]["mean"] < 0.65
    assert summary["overall"]["sampled"]["after"]["mean"] > 0.9
    assert sum(row["staleness_mean"] for row in folder.metrics()) > 10


@pytest.mark.parametrize("staleness", [1, 3])
async def test_the_bound_is_kept_and_made_use_of(train: Train, staleness: int) -> None:
    rows = (await train(asynchronous={"max_staleness": staleness})).metrics()
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert max(row["staleness_max"] for row in rows) == staleness
    assert all(row["samples"] == 8 for row in rows), "every step is full"
    assert all(row["staleness_max"] <= min(staleness, row["step"] - 1) for row in rows)
    assert sum(row["off_policy_share"] for row in rows) > 1
    assert sum(row["overlap_seconds"] for row in rows) > 0
    for row in rows:
        shares = [value for name, value in row.items() if name.startswith("staleness/")]
        assert sum(shares) == pytest.approx(1)
        assert 0 < row["effective_share"] <= 1 + 1e-9
    assert sum(row["episodes"] for row in rows) == 64, "nothing is played in vain"


async def test_weights_change_in_mid_turn_and_every_token_keeps_its_version(train: Train) -> None:
    folder = await train(steps=12, asynchronous={"max_staleness": 3})
    tokens = _tokens(folder)
    mixed = [t for t in tokens if t.spans]
    assert mixed, "no completion went on under new weights"
    for one in tokens:
        assert len(one.versions) == len(one.completion_ids) == len(one.logprobs)
        assert one.versions == sorted(one.versions)
        assert one.policy_version == min(one.versions)


async def test_a_slow_tool_stalls_no_step_within_the_bound(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """One episode ends when another has begun that is begun only after the first step."""

    def prepare(patience: float) -> None:
        for name, value in (("begun", 0), ("others", 24), ("patience", patience), ("enough", asyncio.Event())):
            monkeypatch.setattr(Waiting, name, value, raising=False)

    sampling = {"max_tokens": 8, "concurrency": 64, "retries": 0}
    prepare(60)
    rows = (await train(Waiting, steps=4, sampling=sampling)).metrics()
    assert [row["episodes_failed"] for row in rows] == [0, 0, 0, 0]
    prepare(0.5)
    rows = (await train(Waiting, steps=4, sampling=sampling, asynchronous={"max_staleness": 0})).metrics()
    assert [row["episodes_failed"] for row in rows] == [1, 0, 0, 0], "in turns, the step waits for it in vain"


@pytest.mark.parametrize(
    ("values", "copied"), [({}, True), ({"asynchronous": {}}, False), ({"engine": _path(Served)}, False)]
)
async def test_the_engine_runs_a_copy_only_where_it_must(
    train: Train, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], copied: bool
) -> None:
    seen: list[LanguageModel] = []

    def noting(kind: type, real: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *parts: Any, **named: Any) -> None:
            seen.append(named.get("language_model") or parts[2])
            real(self, *parts, **named)

        return init

    for kind in (InProcessEngine, Learner):
        monkeypatch.setattr(kind, "__init__", noting(kind, kind.__init__))
    await train(steps=1, **values)
    sampled, trained = seen
    assert (sampled.model is not trained.model) is copied


async def test_an_engine_that_keeps_old_weights_is_caught(train: Train) -> None:
    """Even where no step holds a token of the weights that it trains."""
    with pytest.raises(EngineMismatch, match="nats off the trainer's on average"):
        await train(engine=_path(Deaf), optimizer={"learning_rate": 0.1}, mismatch_limit=0.02, steps=20)


async def test_tokens_that_are_not_weighed_are_warned_of(train: Train) -> None:
    plain = json.loads(((await train(steps=1, objective={"name": "grpo"})).path / "summary.json").read_text())
    weighed = json.loads(((await train(steps=1)).path / "summary.json").read_text())
    assert any("importance_cap" in line for line in plain["warnings"])
    assert not any("importance_cap" in line for line in weighed["warnings"])


async def test_budgets_and_evaluation_on_the_way(train: Train) -> None:
    folder = await train(steps=50, max_sampled_tokens=2000, evaluate={"tasks": 1, "every": 2})
    summary = json.loads((folder.path / "summary.json").read_text())
    rows = folder.metrics()
    assert summary["ended"] == "the budget of 2,000 sampled tokens"
    assert sum(row["sampled_tokens"] for row in rows[:-1]) < 2000 <= sum(row["sampled_tokens"] for row in rows)
    assert sum(row["sampled_tokens"] for row in rows) == sum(len(t.completion_ids) for t in _tokens(folder))
    assert folder.evaluation("step-000002").is_file()


async def test_a_broken_environment_stops_the_run(train: Train) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await train(Broken, steps=50)
    assert caught.group_contains(TooManyFailures, match="no daemon")


async def test_several_updates_see_the_weights_before_the_step(train: Train) -> None:
    """Old log-probs are the trainer's at the start of the step, whichever weights sampled the tokens."""
    rows = (await train(updates=2, epochs=2, steps=4)).metrics()
    assert max(row["ratio_max"] for row in rows) > 1
    assert max(row["importance_mean"] for row in rows[1:]) != 1


def test_reproducible_runs_are_not_asynchronous(model_folder: Path) -> None:
    with pytest.raises(RecipeError, match="set reproducible = false beside it"):
        ReinforcementStage(**_recipe(model_folder, Prose, reproducible=True))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
@pytest.mark.parametrize("rank", [0, 4])
def test_a_copy_samples_as_its_original_and_does_not_change_with_it(model_folder: Path, rank: int) -> None:
    recipe = ReinforcementRecipe.model_validate(
        _recipe(model_folder, Prose, model={"path": str(model_folder), "lora_rank": rank})
    )
    model = load_model(recipe.model)
    trained = [p for p in model.model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.data += 0.01
    copy = model.copy()
    weights = {name: tensor.clone() for name, tensor in model.weights().items()}
    assert weights.keys() == copy.weights().keys()
    for parameter in trained:
        parameter.data += 1
    for name, tensor in copy.weights().items():
        assert tensor.equal(weights[name])


def test_a_killed_run_goes_on(model_folder: Path, tmp_path: Path) -> None:
    """kill -9 in mid-run: every step is there once, the bound holds, and no task is played to its end twice."""
    place, path = tmp_path / "run", tmp_path / "recipe.toml"
    recipe = _recipe(model_folder, Prose, steps=12, checkpoint_every=2, sampling={"max_tokens": 16})
    recipe["mix"] = [{"env": "math_problems-v1", "settings": {"max_turns": 1, "families": ["arithmetic"]}}]
    path.write_text(tomli_w.dumps({**recipe, "reward": {"control": "random"}}))
    command = [sys.executable, "-c", "from envgym.cli import main; main()", "train"]
    with subprocess.Popen([*command, str(path), "--out", str(place)], stderr=subprocess.DEVNULL) as process:
        while not (place / "checkpoints").is_dir() or not list((place / "checkpoints").glob("step-*[0-9]")):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        process.kill()
    subprocess.run([*command, "--resume", str(place)], check=True, capture_output=True)
    folder = RunFolder.existing(place)
    rows = folder.metrics()
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert max(row["staleness_max"] for row in rows) <= 2
    assert all(row["samples"] == 8 for row in rows)
    seeds = Counter(t.seed for row in rows for t in folder.trajectories(row["step"]))
    assert set(seeds.values()) == {1}
    assert len(seeds) == 12 * 8
