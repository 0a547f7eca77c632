"""Every architecture equals its own plain forward pass beyond its windows, or is refused by name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from envgym.errors import UserError
from envgym_trainers.engine import attention, view
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.engine.spans import FULL, Span, layer_spans

WINDOW = 8
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
MIXED = ["sliding_attention", "full_attention"] * 2
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
RUN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW}),
    "mixtral": ("MixtralConfig", {"sliding_window": WINDOW, **EXPERTS}),
    "ministral": ("MinistralConfig", {"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2, window": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "qwen3 moe": (
        "Qwen3MoeConfig",
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "gemma": ("GemmaConfig", {"head_dim": 8}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": WINDOW, "attn_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED}),
    "gpt-oss": ("GptOssConfig", {"head_dim": 8, "sliding_window": WINDOW, **EXPERTS}),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", {"sliding_window": WINDOW}),
    "olmo2": ("Olmo2Config", {}),
    "olmo3": ("Olmo3Config", {"sliding_window": WINDOW, "layer_types": MIXED}),
    "smollm3": ("SmolLM3Config", {"no_rope_layers": [1, 1, 1, 0]}),
    "granite": ("GraniteConfig", {"logits_scaling": 4.0, "attention_multiplier": 0.3}),
    "cohere2": ("Cohere2Config", {"sliding_window": WINDOW, "layer_types": MIXED}),
    "starcoder2": ("Starcoder2Config", {"sliding_window": WINDOW}),
    "stablelm": ("StableLmConfig", {}),
    "glm4": ("Glm4Config", {"head_dim": 8}),
    "helium": ("HeliumConfig", {"head_dim": 4}),
    "exaone4": ("Exaone4Config", {"sliding_window": WINDOW, "layer_types": MIXED}),
    "llama4": (
        "Llama4TextConfig",
        {
            "head_dim": 4,
            "attention_chunk_size": WINDOW,
            "no_rope_layers": [1, 0, 1, 0],
            "intermediate_size_mlp": 32,
            **EXPERTS,
        },
    ),
    "deepseek": (
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 6,
            "first_k_dense_replace": 1,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
    ),
    "gpt2": ("GPT2Config", {}),
    "gpt-neox": ("GPTNeoXConfig", {}),
    "opt": ("OPTConfig", {"ffn_dim": 32, "word_embed_proj_dim": 16}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", {"state_size": 4}),
    "bloom": ("BloomConfig", {"n_head": 4}),
    "qwen3-next": (
        "Qwen3NextConfig",
        {
            "head_dim": 8,
            "linear_key_head_dim": 4,
            "linear_value_head_dim": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"] * 2}),
}


def make(name: str, settings: dict[str, Any]) -> PreTrainedModel:
    """A model of random weights, biases and sinks too; in float32, as mixtures of experts know no float64."""
    torch.manual_seed(0)
    sizes = dict(SIZES)
    if name in ("GPT2Config", "BloomConfig"):
        sizes["n_positions"] = 64
    config = getattr(transformers, name)(**{**sizes, **settings})
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("family", RUN)
async def test_every_family_says_what_a_plain_forward_pass_says(
    family: str,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., InProcessEngine],
    converse: Any,
    expected_logprobs: Callable[..., list[float]],
) -> None:
    """Three conversations of three turns, twice as long as a window or a chunk; turns of several blocks."""
    monkeypatch.setattr(attention, "_BLOCK", 2)
    if packed:
        monkeypatch.setattr(view, "_WORTH_PACKING", 0)
    model = make(*RUN[family])
    engine = start(model)
    draw = random.Random(0)
    plans = [[[draw.randrange(8, 97) for _ in range(draw.randint(3, 9))] for _ in range(3)] for _ in range(3)]
    jobs = [converse(engine.open(), plan, seed=10 * i, max_tokens=5) for i, plan in enumerate(plans)]
    for turns in await asyncio.gather(*jobs):
        assert sum(len(prompt) + len(sampled.ids) for prompt, sampled in turns) > 2 * WINDOW
        found = [value for _, sampled in turns for value in sampled.logprobs]
        assert found == pytest.approx(expected_logprobs(model, turns), abs=2e-4)


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_run_in_pieces_is_refused_by_name(family: str) -> None:
    model = make(*REFUSED[family])
    with pytest.raises(UserError, match="the in-process engine"):
        Scheduler(model, memory=2**24, capacity=64, ends=lambda row: False)


@pytest.mark.parametrize(
    ("name", "settings", "spans"),
    [
        ("LlamaConfig", {}, [FULL] * 4),
        ("MistralConfig", {"sliding_window": 8}, [Span("sliding", 8)] * 4),
        ("Gemma3TextConfig", {"sliding_window": 8, "layer_types": MIXED}, [Span("sliding", 8), FULL] * 2),
        (
            "Llama4TextConfig",
            {"attention_chunk_size": 8, "no_rope_layers": [1, 0, 1, 0]},
            [Span("chunked", 8), FULL] * 2,
        ),
    ],
)
def test_spans_by_hand(name: str, settings: dict[str, Any], spans: list[Span]) -> None:
    assert layer_spans(getattr(transformers, name)(**{**SIZES, **settings})) == spans


def test_first_visible_token_by_hand() -> None:
    """A window of 8 counts the token itself; chunks of 8 begin at 0, 8, 16."""
    assert [FULL.first(p) for p in (0, 9)] == [0, 0]
    assert [Span("sliding", 8).first(p) for p in (0, 7, 8, 20)] == [0, 0, 1, 13]
    assert [Span("chunked", 8).first(p) for p in (0, 7, 8, 20)] == [0, 0, 8, 16]
