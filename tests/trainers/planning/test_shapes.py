"""Models are counted as transformers builds them, and stand for the sizes that they are named by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from envgym.errors import UnknownNameError, UserError
from envgym_trainers.models.load import ModelConfig, NewModelConfig, load_config, load_model
from envgym_trainers.planning.shapes import SIZES, shape_of, shape_of_size

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
}
MIXTURE: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("0.5B", 494_032_768),
        ("1.5B", 1_543_714_304),
        ("7B", 7_615_616_512),
        ("32B", 32_763_876_352),
        ("70B", 70_553_706_496),
    ],
)
def test_the_sizes_are_those_of_the_published_models(size: str, parameters: int) -> None:
    """The numbers of parameters that the model cards of Qwen2.5 and Llama 3.1 give, to the last one."""
    assert shape_of_size(size).parameters == parameters


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "mixtral"]
)
def test_a_shape_is_that_of_the_model_itself(kind: str) -> None:
    """Parameters, the cache of one conversation and the adapters, compared with a model that has weights."""
    options = {"head_dim": 16, "pad_token_id": 0, **(MIXTURE if kind == "mixtral" else {})}
    config = AutoConfig.for_model(kind, **SMALL, **options)
    shape, model = shape_of(config), AutoModelForCausalLM.from_config(config).eval()
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.active < shape.parameters or model.lm_head.weight is model.get_input_embeddings().weight
    with torch.no_grad():
        cache = model(input_ids=torch.ones(1, 40, dtype=torch.long), use_cache=True).past_key_values
    assert shape.cached(40) == sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)


def test_a_mixture_counts_the_experts_of_a_token_as_active() -> None:
    """By hand: 2 of the 4 experts of each of 4 layers are left out, and the input embedding."""
    shape = shape_of(AutoConfig.for_model("mixtral", **SMALL, **MIXTURE))
    expert = 3 * 64 * 96
    assert shape.parameters - shape.active == 4 * 2 * expert + 500 * 64
    assert shape.inner == 2 * 96


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    """Gemma 2 alternates: of 4 layers, 2 keep 32 tokens and 2 everything, 2·2·16 elements a token."""
    shape = shape_of(AutoConfig.for_model("gemma2", **SMALL, head_dim=16, sliding_window=32))
    assert shape.windows == (32, 32)
    assert shape.cached(100) == 2 * 32 * (2 * 32 + 2 * 100)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
def test_adapters_are_counted_as_peft_makes_them() -> None:
    shape = shape_of(load_config(ModelConfig()))
    trained = load_model(ModelConfig(lora_rank=8)).model
    assert 8 * shape.adapted == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_a_size_that_has_no_shape_and_a_model_that_is_made_anew_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model size '8B'.*allowed: 0.5B, 1.5B, 32B, 70B, 7B"):
        shape_of_size("8B")
    with pytest.raises(UserError, match="its shape is not known before"):
        load_config(ModelConfig(new=NewModelConfig()))
    with pytest.raises(UserError, match="no model at 'nowhere'"):
        load_config(ModelConfig(path="nowhere"))


def test_every_size_can_be_built() -> None:
    assert {size: shape_of_size(size).layers for size in SIZES} == {
        "0.5B": 24, "1.5B": 28, "7B": 28, "32B": 64, "70B": 80
    }  # fmt: skip
