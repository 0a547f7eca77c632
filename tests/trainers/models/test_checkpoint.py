"""Checkpoints are whole or absent, two are kept, and what is restored is bit for bit what was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from envgym_trainers.batch import Sample, as_units
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.checkpoint import latest_checkpoint, save_checkpoint
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.recipe import OptimizerConfig
from envgym_trainers.stages.sft import negative_log_likelihood

MakeSample = Callable[..., Sample]


@pytest.fixture
def save(make_language_model: Callable[[], LanguageModel], tmp_path: Path) -> Callable[..., None]:
    language_model = make_language_model()

    def run(step: int, tensors: dict[str, Any] | None = None) -> None:
        save_checkpoint(tmp_path, step, language_model, tensors or {}, {"step": step})

    return run


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "missing") is None


def test_the_newest_two_are_kept(save: Callable[..., None], tmp_path: Path) -> None:
    """By number, not by spelling: step 1 000 000 comes after 999 999."""
    for step in (999_998, 999_999, 1_000_000):
        save(step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1000000", "step-999999"]
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state() == {"step": 1_000_000}


def test_a_draft_left_by_a_kill_is_ignored_and_then_removed(save: Callable[..., None], tmp_path: Path) -> None:
    save(1)
    draft = tmp_path / "step-000002.draft"
    (draft / "model").mkdir(parents=True)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state() == {"step": 1}
    save(3)
    assert not draft.exists()


def test_a_failure_while_saving_leaves_the_earlier_one(
    save: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1)

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save(2)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state() == {"step": 1}


def test_saving_the_same_step_again_replaces_it(save: Callable[..., None], tmp_path: Path) -> None:
    save(1, {"x": torch.tensor(1)})
    save(1, {"x": torch.tensor(2)})
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert int(checkpoint.tensors()["x"]) == 2


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_training_goes_on_bit_for_bit(
    model_folder: Path, tmp_path: Path, make_sample: MakeSample, lora_rank: int
) -> None:
    """Six updates in one go; or three, a checkpoint, a new process, three more: equal weights and rates."""
    config = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, decay="linear", weight_decay=0.01)
    batches = [[make_sample([0, 0, 1, 1, 1], seed=10 * i + j) for j in range(3)] for i in range(6)]

    def begin(path: Path) -> tuple[LanguageModel, Updater]:
        language_model = load_model(ModelConfig(path=str(path), lora_rank=lora_rank, context=64))
        return language_model, Updater(language_model, config, temperature=1.0, total_updates=6)

    def learn(updater: Updater, which: slice) -> list[dict[str, float]]:
        return [updater.update(as_units(batch), negative_log_likelihood) for batch in batches[which]]

    torch.manual_seed(0)
    whole, updater = begin(model_folder)
    rows = learn(updater, slice(0, 3))
    save_checkpoint(tmp_path, 3, whole, updater.state(), {})
    rows += learn(updater, slice(3, 6))
    torch.manual_seed(1)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    resumed, updater = begin(model_folder if lora_rank else checkpoint.model)
    updater.restore(checkpoint.tensors())
    assert learn(updater, slice(3, 6)) == rows[3:]
    for (name, first), second in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(first, second), name
