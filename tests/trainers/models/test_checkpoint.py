"""Checkpoints are whole or absent, two are kept, and what is restored is bit for bit what was saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from envgym.errors import UserError
from envgym.runs.folder import RunFolder
from envgym.runs.reading import read_json
from envgym_trainers.batch import Sample, as_units
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.checkpoint import keep_best, latest_checkpoint, restoring, save_checkpoint
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.recipe import OptimizerConfig
from envgym_trainers.stages.sft import negative_log_likelihood

MakeSample = Callable[..., Sample]
SmallDisk = Callable[[int], AbstractContextManager[Path]]


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


def test_a_checkpoint_is_on_disk_before_it_has_its_name(
    save: Callable[..., None], tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    """Files and folders first, then the name, then the folder that holds the name."""
    save(1)
    final = tmp_path / "step-000001"
    named = disk_calls.index(("rename", str(final)))
    synced = {path for call, path in disk_calls[:named] if call == "sync"}
    expected = [final, *final.rglob("*")]
    assert len(expected) > 6
    assert {str(path).replace("step-000001", "step-000001.draft") for path in expected} <= synced
    assert ("sync", str(tmp_path)) in disk_calls[named:]


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([(2, 0.5), (4, 0.7), (6, 0.6)], (4, 0.7)),
        ([(2, 0.5), (4, 0.5)], (2, 0.5)),
        ([(2, math.nan), (4, 0.5), (6, math.nan)], (4, 0.5)),
        ([(2, 0.5), (4, 0.7), (4, 0.6)], (4, 0.6)),
    ],
    ids=["highest", "first of equals", "nothing measured", "the same step again"],
)
def test_the_best_weights_are_kept(
    make_language_model: Callable[[], LanguageModel],
    tmp_path: Path,
    steps: list[tuple[int, float]],
    kept: tuple[int, float],
) -> None:
    """The highest reward wins, the earlier of equals; a step that a resumed run takes again replaces itself."""
    folder = RunFolder(tmp_path)
    language_model = make_language_model()
    parameter = next(language_model.model.parameters())
    for step, reward in steps:
        torch.nn.init.constant_(parameter, float(step))
        keep_best(folder, step, reward, language_model)
    best = folder.checkpoints / "best"
    assert read_json(best / "best.json") == dict(zip(("step", "reward"), kept, strict=True))
    loaded = load_model(ModelConfig(path=str(best), context=32))
    assert next(loaded.model.parameters()).unique().tolist() == [kept[0]]


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
    with pytest.raises(
        UserError, match=r"step-000002/tensors.pt could not be written: no space left on device \(.* free there"
    ):
        save(2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state() == {"step": 1}


def test_saving_the_same_step_again_replaces_it(save: Callable[..., None], tmp_path: Path) -> None:
    save(1, {"x": torch.tensor(1)})
    save(1, {"x": torch.tensor(2)})
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert int(checkpoint.tensors()["x"]) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),  # type: ignore[dict-item, return-value]
    "cut short": _cut,
    "one bit": _flip,
    "other text": lambda path: path.write_text('["not", "this"]'),  # type: ignore[dict-item, return-value]
}
_FILES = ("state.json", "tensors.pt", "model/model.safetensors", "model/config.json", "model/tokenizer.json")


@pytest.mark.parametrize("file", [*_FILES, "manifest.json"])
@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    save: Callable[..., None], tmp_path: Path, file: str, damage: str
) -> None:
    """Whatever is wrong with whichever file: the newest is passed over, and the message names file and fault."""
    save(1)
    save(2)
    _DAMAGE[damage](tmp_path / "step-000002" / file)
    said: list[str] = []
    checkpoint = latest_checkpoint(tmp_path, said.append)
    assert checkpoint is not None
    if (file, damage) == ("manifest.json", "missing"):  # as older versions wrote it
        assert checkpoint.state() == {"step": 2}
        assert said == []
        return
    assert checkpoint.state() == {"step": 1}
    (text,) = said
    assert "step-000002 is damaged" in text
    assert "going back to step-000001" in text
    if file != "manifest.json":  # a bit of it changed may say anything of any file
        assert file.rpartition("/")[2] in text


@pytest.mark.parametrize("file", _FILES)
@pytest.mark.parametrize("damage", [name for name in _DAMAGE if name != "one bit"])
def test_a_damaged_checkpoint_without_a_manifest_gives_way_as_well(
    save: Callable[..., None], tmp_path: Path, file: str, damage: str
) -> None:
    """Older versions wrote none; what cannot be read is found, though not a bit that changed."""
    save(1, {"x": torch.ones(1000)})
    save(2, {"x": torch.ones(1000)})
    for step in (1, 2):
        (tmp_path / f"step-00000{step}" / "manifest.json").unlink()
    _DAMAGE[damage](tmp_path / "step-000002" / file)
    said: list[str] = []
    checkpoint = latest_checkpoint(tmp_path, said.append)
    assert checkpoint is not None
    assert checkpoint.state() == {"step": 1}
    assert [file in text for text in said] == [True]


def test_a_manifest_that_forgets_a_file_vouches_for_nothing(save: Callable[..., None], tmp_path: Path) -> None:
    save(1)
    (tmp_path / "step-000001" / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(UserError, match="manifest.json is not a manifest"):
        latest_checkpoint(tmp_path)


def test_a_model_read_from_a_run_warns_of_damage(save: Callable[..., None], tmp_path: Path) -> None:
    save(1)
    save(2)
    (tmp_path / "step-000002" / "tensors.pt").unlink()
    with pytest.warns(
        UserWarning, match=r"step-000002 is damaged: tensors.pt is missing; going back to step-000001"
    ):
        latest_checkpoint(tmp_path)


def test_what_was_after_a_resumed_step_goes_with_the_next_checkpoint(
    save: Callable[..., None], tmp_path: Path
) -> None:
    """Went a run back from a damaged step 3 to step 1, its two good ones are kept, not the damaged one."""
    for step in (1, 3, 2):
        save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]


def test_when_all_are_damaged_each_is_named(save: Callable[..., None], tmp_path: Path) -> None:
    save(1)
    save(2)
    for step in (1, 2):
        (tmp_path / f"step-00000{step}" / "tensors.pt").unlink()
    with pytest.raises(UserError, match=r"step-000002 .* tensors.pt is missing; .* step-000001 .* tensors.pt"):
        latest_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_last_good_state(
    make_language_model: Callable[[], LanguageModel], small_disk: SmallDisk
) -> None:
    """The first checkpoint fits, the second does not: the message names the file, and nothing is left of it."""
    language_model = make_language_model()
    with small_disk(2**20) as folder:
        save_checkpoint(folder, 1, language_model, {}, {"step": 1})
        large = {"x": torch.zeros(2**19)}
        with pytest.raises(
            UserError, match=r"step-000002/tensors.pt could not be written: .*\(.*MiB free there\)"
        ):
            save_checkpoint(folder, 2, language_model, large, {"step": 2})
        checkpoint = latest_checkpoint(folder)
        assert checkpoint is not None
        assert checkpoint.state() == {"step": 1}
        assert [path.name for path in folder.iterdir()] == ["step-000001"]


def test_tensors_of_another_model_are_refused(
    make_language_model: Callable[[], LanguageModel], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, 1, make_language_model(), {"updates": 1, "optimizer": {}}, {})
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    updater = Updater(make_language_model(), OptimizerConfig(), temperature=1.0, total_updates=2)
    with (
        pytest.raises(UserError, match="is not a checkpoint of this recipe and this model"),
        restoring(checkpoint),
    ):
        updater.restore(checkpoint.tensors())


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
