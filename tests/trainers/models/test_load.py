"""Loading and saving: what is saved loads as the same model, and what cannot be loaded says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from envgym.errors import UnknownNameError, UserError
from envgym_trainers.models.checkpoint import save_checkpoint
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, NewModelConfig, load_model

_IDS = torch.tensor([[5, 6, 7, 8, 9]])


def _load(path: Path, **values: object) -> LanguageModel:
    return load_model(ModelConfig.model_validate({"path": str(path), "context": 64, **values}))


@torch.no_grad()
def _logits(language_model: LanguageModel) -> torch.Tensor:
    logits: torch.Tensor = language_model.model(input_ids=_IDS).logits
    return logits


def _parts_of(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in language_model.model.state_dict().items()}


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_saved_model_loads_bit_for_bit(
    make_language_model: Callable[[], LanguageModel], model_folder: Path
) -> None:
    loaded = _load(model_folder)
    assert _same(_parts_of(loaded), _parts_of(make_language_model()))
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_context_is_at_most_what_the_model_can_hold(model_folder: Path) -> None:
    assert _load(model_folder).context == 64
    assert _load(model_folder, context=100_000).context == 128


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapters_are_saved_merged_and_stay_apart_in_memory(
    model_folder: Path, tmp_path: Path, family: str
) -> None:
    """Loading the saved model gives the adapted model's logits; saving leaves not a bit changed behind."""
    folder = model_folder
    if family == "gpt2":
        folder = tmp_path / "gpt2"
        shutil.copytree(model_folder, folder)
        size = {"vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
        GPT2LMHeadModel(GPT2Config(**size, bos_token_id=None, eos_token_id=None)).save_pretrained(folder)
    adapted = _load(folder, lora_rank=2)
    trainable = {name for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".lora_" in name for name in trainable)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if name in trainable:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    before = _parts_of(adapted)
    adapted.save(tmp_path / "saved")
    assert _same(before, _parts_of(adapted))
    loaded = _load(tmp_path / "saved")
    torch.testing.assert_close(_logits(loaded), _logits(adapted), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(_logits(loaded), _logits(_load(folder)), atol=1e-2)


def test_a_run_folder_stands_for_its_newest_checkpoint(
    make_language_model: Callable[[], LanguageModel], tmp_path: Path
) -> None:
    language_model = make_language_model()
    for step in (9, 10):
        with torch.no_grad():
            next(language_model.model.parameters()).fill_(step)
        save_checkpoint(tmp_path / "checkpoints", step, language_model, {}, {})
    assert float(next(_load(tmp_path).model.parameters()).detach()[0, 0]) == 10


def test_nothing_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a folder with config\.json, a run folder, a \.gguf file"):
        _load(tmp_path)
    with pytest.raises(UserError, match="no model at"):
        _load(tmp_path / "missing")


def test_an_unknown_builtin_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tiny'"):
        load_model(ModelConfig(path="builtin:tinny"))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym_trainers.models.load.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"envgym\[smollm\]"):
        load_model(ModelConfig(path="builtin:smollm2"))


def test_a_model_without_chat_template_is_refused(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        _load(tmp_path / "m")


@pytest.mark.parametrize("damage", ["weights", "config", "kind", "tokenizer"])
def test_a_damaged_folder_is_the_users_to_mend(model_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model_folder, folder)
    if damage == "weights":
        (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    elif damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "no_such_family"}))
    else:
        (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        _load(folder)


@pytest.mark.parametrize(
    ("template", "setting", "format_"),
    [
        ("<tool_call><function=a><parameter=b>", "auto", "Qwen3CoderFormat"),
        ("[TOOL_CALLS]", "auto", "MistralFormat"),
        ("<|python_start|>", "auto", "PythonicFormat"),
        ("nothing of the kind", "auto", "HermesFormat"),
        ("[TOOL_CALLS]", "hermes", "HermesFormat"),
    ],
)
def test_the_tool_format_is_that_of_the_template_unless_one_is_set(
    model_folder: Path, tmp_path: Path, template: str, setting: str, format_: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model_folder, folder)
    written = f"{{# {template} #}}{{% for m in messages %}}{{{{ m.role }}}}:{{{{ m.content }}}};{{% endfor %}}"
    (folder / "chat_template.jinja").write_text(written)
    assert type(_load(folder, tool_format=setting).tool_format).__name__ == format_


def test_code_in_a_models_folder_is_never_run(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model_folder, folder)
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="cannot be loaded"):
        _load(folder)
    assert not marker.exists()


def test_a_tokenizer_larger_than_the_model_is_refused(
    make_language_model: Callable[[], LanguageModel], tmp_path: Path
) -> None:
    """An id without an embedding would otherwise stop the engine in the middle of a run."""
    language_model = make_language_model()
    known = len(language_model.tokenizer)
    language_model.tokenizer.add_tokens(["<extra>"])
    language_model.save(tmp_path / "m")
    with pytest.raises(UserError, match=f"its tokenizer has {known + 1} tokens, the model {known}"):
        _load(tmp_path / "m")


def test_a_new_model_cannot_have_adapters() -> None:
    with pytest.raises(pydantic.ValidationError, match="no weights to adapt"):
        ModelConfig(new=NewModelConfig(), lora_rank=4)
