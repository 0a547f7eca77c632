"""Settings of a recipe, turned through the real stage: each changes what it says, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from toys import numbered

from envgym.env.chat_env import ChatEnv
from envgym.env.tools import run_calls, tool
from envgym.errors import RecipeError, SandboxError
from envgym.records import Score, Split, Task, ToolCall, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.interface import EngineSession, Sampled, SamplingParams
from envgym_trainers.models.checkpoint import Checkpoint, latest_checkpoint
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.stages.rl import ReinforcementStage


class Echo(ChatEnv):
    """Says something; what is answered is rewarded by its length, as the policy wrote it."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return numbered(split, 8, *(f"say {i}" for i in range(8)))

    def score(self, trajectory: Trajectory) -> Score:
        letters = sum(map(str.isalpha, trajectory.final_text)) / 10
        return Score(value=min(letters, 1.0), accuracy=0.0)


class Relay(Echo):
    """The first training episode begins only when another has ended."""

    patience: ClassVar[float]
    ended: ClassVar[asyncio.Event]
    waits: ClassVar[bool]

    async def start(self, task: Task) -> None:
        if task.split == "train" and not self.waits:
            type(self).waits = True
            try:
                await asyncio.wait_for(self.ended.wait(), self.patience)
            except TimeoutError:
                raise SandboxError("nobody was let past") from None

    def score(self, trajectory: Trajectory) -> Score:
        if trajectory.task.split == "train":
            self.ended.set()
        return super().score(trajectory)


class Inexact(InProcessEngine):
    """Reports log-probs that are off by up to a nat, differently for each id."""

    def open(self) -> EngineSession:
        return _InexactSession(super().open())


class _InexactSession(EngineSession):
    def __init__(self, real: EngineSession) -> None:
        self._real = real

    @property
    def length(self) -> int:
        return self._real.length

    def rewrite(self) -> None:
        self._real.rewrite()

    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        given = await self._real.sample(new_ids, params, seed=seed)
        off = [value + math.sin(i) for i, value in zip(given.ids, given.logprobs, strict=True)]
        return Sampled(ids=given.ids, logprobs=off, ended=given.ended, spans=given.spans)

    async def close(self) -> None:
        await self._real.close()


def _path(kind: type) -> str:
    return f"{kind.__module__}:{kind.__name__}"


Train = Callable[..., Coroutine[Any, Any, RunFolder]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train(environment, steps=…)``: the folder of a run of one step."""
    count = itertools.count()

    async def run(environment: type[ChatEnv] = Echo, **values: Any) -> RunFolder:
        recipe: dict[str, Any] = {
            "mix": [{"env": _path(environment), "name": "toy"}],
            "model": {"path": str(model_folder), "context": 48},
            "sampling": {"max_tokens": 6, "retries": 0},
            "optimizer": {"learning_rate": 1e-3},
            "evaluate": {"tasks": 1},
            "steps": 1,
            "groups": 2,
            "group_size": 4,
            "objective": {"name": "grpo"},
            **values,
        }
        stage = ReinforcementStage(**recipe)
        folder = RunFolder.create(tmp_path / f"run-{next(count)}", stage.config, 0)
        with Reporter(live=False) as reporter:
            assert await stage.run(folder, reporter) is not None
        return folder

    return run


def _checkpoint(folder: RunFolder) -> Checkpoint:
    checkpoint = latest_checkpoint(folder.checkpoints)
    assert checkpoint is not None
    return checkpoint


def _weights(folder: RunFolder) -> torch.Tensor:
    model = load_model(ModelConfig(path=str(_checkpoint(folder).model))).model
    return torch.cat([p.detach().flatten() for p in model.parameters()])


async def test_levels_and_modes_of_importance_each_make_an_update_of_their_own(train: Train) -> None:
    """Of the same episodes, of an engine that is off: six combinations and no weight at all, seven results."""
    settings: list[dict[str, Any]] = [
        {"importance_cap": 1.1, "importance_level": level, "importance_mode": mode}
        for level in ("token", "sequence", "geometric")
        for mode in ("truncate", "mask")
    ]
    folders = [
        await train(engine={"name": _path(Inexact)}, mismatch_limit=1e9, objective={"name": "grpo", **values})
        for values in (*settings, {})
    ]
    assert len({folder.metrics()[0]["engine_gap"] for folder in folders}) == 1, "the episodes are the same"
    for one, two in itertools.combinations(map(_weights, folders), 2):
        assert float((one - two).abs().max()) > 1e-4


async def test_gradient_checkpointing_changes_no_result(train: Train) -> None:
    off, *others = [
        _weights(await train(optimizer={"learning_rate": 1e-3, "gradient_checkpointing": how}))
        for how in ("off", "selective", "full")
    ]
    for other in others:
        torch.testing.assert_close(other, off, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("epochs", [1, 3])
async def test_epochs_are_updates_on_the_same_episodes(train: Train, epochs: int) -> None:
    folder = await train(epochs=epochs, updates=2)
    assert _checkpoint(folder).tensors()["updates"] == 2 * epochs
    assert folder.metrics()[0]["episodes"] == 8


@pytest.mark.parametrize(("reproducible", "patience"), [(False, 60.0), (True, 0.5)])
async def test_only_where_runs_are_reproducible_does_sampling_wait_for_everybody(
    train: Train, monkeypatch: pytest.MonkeyPatch, reproducible: bool, patience: float
) -> None:
    """An episode that begins when another has ended: waited for, it never does; not waited for, all complete."""
    for name, value in (("patience", patience), ("ended", asyncio.Event()), ("waits", False)):
        monkeypatch.setattr(Relay, name, value, raising=False)
    folder = await train(Relay, reproducible=reproducible)
    assert folder.metrics()[0]["episodes_failed"] == float(reproducible)
    assert torch.are_deterministic_algorithms_enabled() is reproducible


class Desk(Echo):
    """Has its tools run whatever is said: the model is not to be relied on to call them."""

    inside: ClassVar[int] = 0
    most: ClassVar[int] = 0

    @tool(limit=3)
    async def counter(self) -> str:
        """Stand at the counter."""
        kind = type(self)
        kind.inside += 1
        kind.most = max(kind.most, kind.inside)
        await asyncio.sleep(0.01)
        kind.inside -= 1
        return "served"

    @tool(cache=True)
    async def directory(self, page: int) -> str:
        """Look a page up."""
        return f"page {page}"

    async def start(self, task: Task) -> None:
        calls = [ToolCall(name="counter"), ToolCall(name="directory", arguments={"page": 1})]
        await run_calls(self.tools, calls)


async def test_tools_are_limited_and_kept_as_the_recipe_says(train: Train) -> None:
    """Eight episodes: the author's limit is 3, and the one look-up that is run was made in measuring before."""
    rows, most = [], []
    for tools in ({}, {"limits": {"counter": 1}}, {"cache_entries": 0}, {"cache_bytes": 1}):
        Desk.most = 0
        folder = await train(Desk, tools=tools)
        rows.append({name: n for name, n in folder.metrics()[0].items() if name.startswith("tools/directory/")})
        most.append(Desk.most)
    assert most == [3, 1, 3, 3]
    kept, unkept = {"tools/directory/cached": 8.0}, {"tools/directory/run": 8.0}
    assert rows[:2] == [kept, kept]
    assert rows[2] == unkept
    assert rows[3]["tools/directory/run"] >= 1.0  # equal calls at once share one, whatever is kept


def test_a_limit_on_a_tool_that_nobody_offers_is_refused(model_folder: Path) -> None:
    stage = ReinforcementStage(
        mix=[{"env": _path(Desk), "name": "toy"}],
        model={"path": str(model_folder)},
        tools={"limits": {"till": 2}},
    )
    with pytest.raises(
        RecipeError, match=r"tools\.limits\.till: no environment .* they offer: counter, directory"
    ):
        stage.check()
