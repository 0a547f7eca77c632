"""Training against servers, through a recipe: what is learnt, what each setting does, and how a run ends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from toys import numbered

from envgym.env.chat_env import ChatEnv
from envgym.errors import RecipeError, UserError
from envgym.records import Score, Split, Task, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.engine.server.errors import (
    OtherModel,
    OtherTrainer,
    OtherWeights,
    ServerFailure,
    UnfitServer,
)
from envgym_trainers.engine.server.labels import Labels
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.stages.rl import ReinforcementStage
from envgym_trainers.testing.servers import MODEL_SERVERS, ModelServer, VllmServer
from envgym_trainers.testing.servers.serving import HttpReply


class Chatter(ChatEnv):
    """Rewards letters."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return numbered(split, 8, *(f"say {i}" for i in range(8)))

    def score(self, trajectory: Trajectory) -> Score:
        letters = sum(map(str.isalpha, trajectory.final_text)) / 10
        return Score(value=min(letters, 1.0), accuracy=0.0)


Train = Callable[..., Coroutine[Any, Any, RunFolder]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train({"name": "vllm", …}, steps=…)``: the folder of a run; ``resume=`` goes on with one."""
    count = itertools.count()

    async def run(engine: dict[str, Any], *, resume: Path | None = None, **values: Any) -> RunFolder:
        recipe: dict[str, Any] = {
            "mix": [{"env": f"{Chatter.__module__}:{Chatter.__name__}", "name": "toy"}],
            "model": {"path": str(model_folder), "context": 48},
            "sampling": {"max_tokens": 6, "retries": 0},
            "optimizer": {"learning_rate": 3e-3},
            "evaluate": {"tasks": 2},
            "steps": 2,
            "groups": 2,
            "group_size": 4,
            "objective": {"name": "grpo"},
            "checkpoint_every": 1,
            "engine": engine,
            **values,
        }
        stage = ReinforcementStage(**recipe)
        place = tmp_path / f"run-{next(count)}"
        folder = RunFolder.existing(resume) if resume else RunFolder.create(place, stage.config, 0)
        with Reporter(live=False) as reporter:
            try:
                assert await stage.run(folder, reporter) is not None
            except ExceptionGroup as group:  # of episodes at once
                raise group.exceptions[0] from None
        return folder

    return run


@pytest.fixture(params=MODEL_SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def served(kind: str, model_folder: Path) -> Iterator[ModelServer]:
    """The model of the recipe behind a server."""
    with MODEL_SERVERS[kind](load_model(ModelConfig(path=str(model_folder), context=48))) as server:
        yield server


async def test_a_recipe_trains_against_a_server(kind: str, served: ModelServer, train: Train) -> None:
    """Every step is sampled from the weights of the one before, to rounding, and no episode is lost."""
    folder = await train({"name": kind, "urls": [served.url]}, steps=3)
    rows = folder.metrics()
    assert len(rows) == 3
    assert max(row["engine_gap_max"] for row in rows) < 1e-4
    assert [row["episodes_failed"] for row in rows] == [0, 0, 0]
    assert [row["staleness_max"] for row in rows] == [0, 0, 0]
    published = [body for path, body in served.seen if path in ("/update_weights", "/update_weights_from_disk")]
    assert len(published) == 3


async def test_a_run_whose_server_dies_in_an_update_ends_typed_and_is_resumed(
    train: Train, model_folder: Path, tmp_path: Path
) -> None:
    """The steps before are kept; another server at another address takes the weights of the checkpoint."""
    model = load_model(ModelConfig(path=str(model_folder), context=48))
    with VllmServer(model) as first:
        updates = itertools.count(1)

        def dies(path: str, body: Any) -> HttpReply | None:
            if path == "/update_weights" and next(updates) == 2:
                raise ConnectionError("killed")
            return None

        first.intercept = dies
        with pytest.raises(ServerFailure, match=rf"not handed over.*{first.url}"):
            await train({"name": "vllm", "urls": [first.url]}, steps=3)
    folder = RunFolder.existing(tmp_path / "run-0")
    assert len(folder.metrics()) == 1
    with VllmServer(model) as second:
        await train({"name": "vllm", "urls": [second.url]}, steps=3, resume=folder.path)
    assert [row["step"] for row in folder.metrics()] == [1, 2, 3]
    assert max(row["engine_gap_max"] for row in folder.metrics()) < 1e-4


async def test_stale_weights_end_the_run_before_anything_is_learnt_from_them(
    kind: str, served: ModelServer, train: Train, tmp_path: Path
) -> None:
    served.load = lambda tensors: None  # type: ignore[method-assign]
    with pytest.raises(OtherWeights, match="stale"):
        await train({"name": kind, "urls": [served.url]}, optimizer={"learning_rate": 0.1})
    assert RunFolder.existing(tmp_path / "run-0").metrics() == []


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
async def test_adapters_are_published_where_the_recipe_says_so(
    kind: str, served: ModelServer, train: Train, model_folder: Path
) -> None:
    model = {"path": str(model_folder), "context": 48, "lora_rank": 2}
    folder = await train({"name": kind, "urls": [served.url], "publish": "lora"}, model=model)
    assert max(row["engine_gap_max"] for row in folder.metrics()) < 1e-4
    paths = [path for path, _ in served.seen]
    assert sum(path.endswith("/load_lora_adapter") for path in paths) == 3
    assert not any("update_weights" in path for path in paths)


async def test_every_setting_of_an_engine_is_turned_by_a_recipe(
    train: Train, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them alone makes a run fail, or go through, that does not without it."""
    monkeypatch.setenv("SERVERS_KEY", "sesame-opens-it")
    with VllmServer(load_model(ModelConfig(path=str(model_folder), context=48))) as server:
        engine = {"name": "vllm", "urls": [server.url]}
        with pytest.raises(OtherModel, match="no model 'other'"):
            await train({**engine, "model": "other"}, steps=1)
        with pytest.raises(UserError, match="no-such-folder"):
            await train({**engine, "folder": str(tmp_path / "no-such-folder")}, steps=1)
        with pytest.raises(OtherWeights, match="tolerance = 1e-12"):
            await train({**engine, "tolerance": 1e-12}, steps=1)
        await train({**engine, "key_env": "SERVERS_KEY"}, steps=1)
        assert "Bearer sesame-opens-it" in server.authorizations
        server.label = Labels(host="elsewhere").of(1)
        with pytest.raises(OtherTrainer):
            await train(engine, steps=1)
        await train({**engine, "take_over": True}, steps=1)
        server.intercept = lambda path, body: time.sleep(0.4) if path == "/v1/models" else None
        with pytest.raises(UnfitServer, match="0.2 s"):
            await train({**engine, "timeout": 0.2}, steps=1)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"urls": []}, "urls"),
        ({"publish": "nccl"}, "publish"),
        ({"timeout": 0}, "timeout"),
        ({"key": "sesame"}, "key"),
    ],
)
def test_settings_that_no_engine_has_are_refused(setting: dict[str, Any], said: str, model_folder: Path) -> None:
    """A key above all: it belongs into a variable."""
    with pytest.raises(RecipeError, match=said):
        ReinforcementStage(mix=[{"env": "math_problems"}], engine={"name": "vllm", **setting})
