"""Models of the hub come from its library's cache where there is no network, or not at all; never by surprise."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from envgym.errors import UserError
from envgym.policies.selection import make_player
from envgym_trainers.chat.policy import ModelPolicy
from envgym_trainers.models import hub
from envgym_trainers.models.load import ModelConfig, check_model, load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library as it is with HF_HUB_OFFLINE=1, with a cache of its own; whoever opens a connection fails."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def connect(*args: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def cached(tmp_path: Path, model_folder: Path) -> Path:
    """A cache with one snapshot of org/name, called main; returns its folder."""
    repository = tmp_path / "cache" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(model_folder, repository / "snapshots" / COMMIT))


@pytest.mark.parametrize("path", ["hf:org/name", "hf:org/name@main", f"hf:org/name@{COMMIT}"])
def test_a_cached_model_is_loaded_without_a_network(path: str, cached: Path, model_folder: Path) -> None:
    config = ModelConfig(path=path)
    check_model(config)
    found, expected = load_model(config), load_model(ModelConfig(path=str(model_folder)))
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)


async def test_a_policy_can_be_one(cached: Path) -> None:
    player = make_player("hf:org/name")
    assert isinstance(player, ModelPolicy)
    await player.close()


@pytest.mark.parametrize("path", ["hf:org/other", "hf:org/name@v2"])
def test_what_is_not_there_says_what_to_do(path: str, cached: Path) -> None:
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE.*hf download org/.* --local-dir FOLDER"):
        load_model(ModelConfig(path=path))


@pytest.mark.parametrize(
    "path", ["hf:", "hf:name", "hf:org/name/more", "hf:../name", "hf:org/name@", "hf:org/na me"]
)
def test_other_names_are_refused_before_anything_is_loaded(path: str) -> None:
    with pytest.raises(UserError, match="expected hf:organisation/name"):
        check_model(ModelConfig(path=path))


def test_a_name_without_the_prefix_is_not_looked_for(cached: Path) -> None:
    """A folder's name that is spelled wrong goes to nobody."""
    with pytest.raises(UserError, match="write hf:org/name to have it fetched"):
        load_model(ModelConfig(path="org/name"))


def test_weights_in_pickles_are_not_read(cached: Path) -> None:
    (cached / "model.safetensors").rename(cached / "pytorch_model.bin")
    with pytest.raises(UserError, match="no weights in safetensors"):
        load_model(ModelConfig(path="hf:org/name"))


def test_code_and_pickles_are_not_fetched() -> None:
    assert not {"*", "*.py", "*.bin", "*.pt"} & set(hub._FILES)
