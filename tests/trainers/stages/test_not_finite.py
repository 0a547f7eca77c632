"""Runs in which something is not finite: they go on without it and say so, or end with a whole checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from toys import Letter, numbered

from envgym.env.chat_env import ChatEnv
from envgym.records import Score, Split, Task, Trajectory
from envgym.rollout.collector import TooManyFailures
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.learner.faults import NotFinite
from envgym_trainers.models.checkpoint import latest_checkpoint
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import ReinforcementStage
from envgym_trainers.stages.sft import SupervisedStage


class Shown(Letter):
    """Odd tasks show a letter, even ones a question mark."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return numbered(split, 100, "?", "a")


class Odd(Shown):
    """Scores every third task with what is no number, or infinite."""

    def score(self, trajectory: Trajectory) -> Score:
        number = int(trajectory.task.id.rpartition("-")[2])
        if number % 3:
            return super().score(trajectory)
        return Score(value=math.nan if number % 2 else -math.inf, accuracy=0.0)


class Spoilt(Shown):
    """Scores with NaN once it is spoilt."""

    spoilt_from: ClassVar[float] = math.inf
    scored: ClassVar[int] = 0

    def score(self, trajectory: Trajectory) -> Score:
        type(self).scored += 1
        return Score(value=math.nan, accuracy=0.0) if self.scored > self.spoilt_from else super().score(trajectory)


def _recipe(model: Path, environment: type[ChatEnv], **values: Any) -> ReinforcementRecipe:
    return ReinforcementRecipe.model_validate(
        {
            "mix": [{"env": f"{environment.__module__}:{environment.__name__}", "name": "toy"}],
            "model": {"path": str(model), "context": 32},
            "sampling": {"max_tokens": 1, "retries": 0},
            "optimizer": {"learning_rate": 1e-2},
            "evaluate": {"tasks": 6},
            "groups": 4,
            "group_size": 4,
            "steps": 3,
            "checkpoint_every": 1,
            "objective": {"name": "grpo"},
            **values,
        }
    )


async def _train(
    recipe: ReinforcementRecipe, place: Path, *, fresh: bool = True
) -> tuple[RunFolder, dict[str, Any] | None]:
    """Begin the run in ``place``, or resume it."""
    folder = RunFolder.create(place, recipe, recipe.seed) if fresh else RunFolder(place)
    with Reporter(live=False) as reporter:
        return folder, await ReinforcementStage(**recipe.model_dump()).run(folder, reporter)


def _weights(folder: Path) -> list[torch.Tensor]:
    return [p.detach().clone() for p in load_model(ModelConfig(path=str(folder))).model.parameters()]


async def test_rewards_that_are_not_finite_are_missing_data(model_folder: Path, tmp_path: Path) -> None:
    """Counted by their cause and warned of; everybody else is trained on."""
    folder, summary = await _train(_recipe(model_folder, Odd), tmp_path / "run")
    assert summary is not None
    rows = folder.metrics()
    lost = [row.get("ended/toy/failed: VerifierError", 0) for row in rows]
    assert sum(lost) > 0
    assert [row["samples"] for row in rows] == [16 - n for n in lost]
    assert all(math.isfinite(row["loss"]) and row["skipped"] == row["not_finite"] == 0 for row in rows)
    assert any("toy, training: " in line and "failed: VerifierError" in line for line in summary["warnings"])


@pytest.fixture
def reference(make_language_model: Any, tmp_path: Path) -> Any:
    """``reference("?")``: a folder with a model whose states at ``?`` are no numbers; ``""``: at every token."""

    def make(text: str) -> Path:
        language_model: LanguageModel = make_language_model()
        model: Any = language_model.model
        model.config.tie_word_embeddings = False
        with torch.no_grad():
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
            ids = language_model.tokenizer.encode(text, add_special_tokens=False)
            model.model.embed_tokens.weight[ids if text else slice(None)] = math.nan
        language_model.save(tmp_path / "reference")
        return tmp_path / "reference"

    return make


def _penalised(folder: Path) -> dict[str, Any]:
    return {"objective": {"name": "grpo", "beta": 0.1}, "auxiliary": {"reference": {"path": str(folder)}}}


async def test_a_reference_broken_in_places_costs_the_trajectories_there(
    model_folder: Path, reference: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of even tasks are left out, counted, and named with the column; odd ones are learnt from."""
    folder, summary = await _train(_recipe(model_folder, Shown, **_penalised(reference("?"))), tmp_path / "run")
    rows = folder.metrics()
    assert all(row["not_finite"] % 4 == 0 and row["samples"] + row["not_finite"] == 16 for row in rows)
    total = int(sum(row["not_finite"] for row in rows))
    assert 0 < total < 48
    assert summary is not None
    assert f"{total} trajectories were left out, not finite" in summary["warnings"]
    said = "".join(capsys.readouterr())
    assert "left out, not finite: toy/train-" in said
    assert "(reference log-probs)" in said
    assert all(row["skipped"] == 0 and math.isfinite(row["loss"]) for row in rows)


async def test_a_broken_reference_ends_the_run_and_leaves_a_whole_checkpoint(
    model_folder: Path, reference: Any, tmp_path: Path
) -> None:
    """After ten steps without anything to learn from. The newest checkpoint has the weights of the start, and the
    count: a resumed run ends at its first step."""
    recipe = _recipe(model_folder, Shown, steps=20, **_penalised(reference("")))
    for fresh in (True, False):
        with pytest.raises(NotFinite, match=r"10 updates in a row .*reference log-probs"):
            await _train(recipe, tmp_path / "run", fresh=fresh)
        checkpoint = latest_checkpoint(RunFolder(tmp_path / "run").checkpoints)
        assert checkpoint is not None
        assert checkpoint.state()["step"] == 9
        assert all(map(torch.equal, _weights(checkpoint.model), _weights(model_folder)))


async def test_a_supervised_run_says_which_updates_it_skipped(
    reference: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that is broken at one token, which every batch has; it ends after ten."""
    stage = SupervisedStage(
        mix=[{"env": f"{Shown.__module__}:{Shown.__name__}", "name": "toy"}],
        model={"path": str(reference("?")), "context": 32},
        examples=64,
        batch_size=16,
        epochs=10,
        evaluate={"tasks": 4},
    )
    folder = RunFolder.create(tmp_path / "run", stage.config, 0)
    with Reporter(live=False) as reporter, pytest.raises(NotFinite, match="10 updates in a row"):
        await stage.run(folder, reporter)
    said = "".join(capsys.readouterr())
    assert [f"warning: update {n} was skipped, not finite: the loss of" in said for n in (1, 9)] == [True, True]


async def test_rewards_that_are_all_nan_end_the_run_which_can_be_resumed(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what the score was. Of 44 good episodes and then bad ones only, more than half are bad at the
    third bad step; the newest checkpoint is of the step before."""
    monkeypatch.setattr(Spoilt, "scored", 0)
    monkeypatch.setattr(Spoilt, "spoilt_from", 12 + 2 * 16)
    recipe = _recipe(model_folder, Spoilt, steps=6)
    with pytest.raises(ExceptionGroup) as caught:
        await _train(recipe, tmp_path / "run")
    assert caught.group_contains(TooManyFailures, match="not a number: nan")
    checkpoint = latest_checkpoint(RunFolder(tmp_path / "run").checkpoints)
    assert checkpoint is not None
    assert checkpoint.state()["step"] == 4
    assert all(bool(weight.isfinite().all()) for weight in _weights(checkpoint.model))
    monkeypatch.setattr(Spoilt, "spoilt_from", math.inf)
    folder, summary = await _train(recipe, tmp_path / "run", fresh=False)
    assert summary is not None
    assert [row["samples"] > 0 for row in folder.metrics()] == [True, True, False, False, True, True]
