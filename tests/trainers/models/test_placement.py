"""A model goes where the recipe says, in the type that it says; a device that is not there is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from envgym.errors import UserError
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.models.placement import Device, place, resolve_device


@pytest.mark.parametrize(
    ("name", "available", "found"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_is_cuda_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, name: Device, available: bool, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device(name) == torch.device(found)


@pytest.mark.parametrize(("built", "reason"), [(True, "torch finds no GPU"), (False, "built without CUDA")])
def test_a_missing_gpu_is_named_before_the_model_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built: bool, reason: str
) -> None:
    """The folder does not even exist."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    with pytest.raises(UserError, match=f"model.device = 'cuda', but .*{reason}.*'auto' or 'cpu'"):
        load_model(ModelConfig(path=str(tmp_path / "missing"), device="cuda"))


def test_the_type_is_that_of_every_weight_and_of_what_is_saved(model_folder: Path, tmp_path: Path) -> None:
    """A bfloat16 model saves as one, bit for bit, and its folder says so."""
    loaded = load_model(ModelConfig(path=str(model_folder), context=64, dtype="bfloat16"))
    assert loaded.dtype == torch.bfloat16
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    loaded.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    again = load_model(ModelConfig(path=str(tmp_path), context=64, dtype="bfloat16"))
    for name, value in loaded.weights().items():
        assert torch.equal(value, again.weights()[name]), name


def test_a_new_model_is_placed_like_one_from_a_folder(make_language_model: Callable[[], LanguageModel]) -> None:
    made = make_language_model()
    place(made.model, "cpu", "bfloat16")
    assert (made.device, made.dtype) == (torch.device("cpu"), torch.bfloat16)
