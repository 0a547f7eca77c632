"""Which models attend to everything, and the mask each kind of attention reads."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, LlamaForCausalLM, MambaConfig, MistralConfig, PreTrainedConfig

from envgym_trainers.models.attention import attention_mask, partial_attention

SEEN = torch.tensor([[[[True, False], [True, True]]]])


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (LlamaConfig(), {}),
        (MistralConfig(sliding_window=None), {}),
        (MistralConfig(sliding_window=64), {"sliding_window": 64}),
        (Gemma2Config(num_hidden_layers=2, sliding_window=32), {"sliding_window": 32}),
        (Gemma2Config(layer_types=["full_attention"], num_hidden_layers=1, sliding_window=32), {}),
        (MambaConfig(), {"linear_attention": 0}),
    ],
)
def test_what_keeps_layers_from_the_whole_past(config: PreTrainedConfig, found: dict[str, int]) -> None:
    assert partial_attention(config) == found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_mask_says_who_is_seen_in_the_words_of_the_attention(attention: str) -> None:
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    config._attn_implementation = attention
    mask = attention_mask(LlamaForCausalLM(config).bfloat16(), SEEN)
    if attention == "sdpa":
        assert torch.equal(mask, SEEN)
    else:
        assert mask.dtype == torch.bfloat16
        assert torch.equal(mask.exp(), SEEN.bfloat16()), "added to a score, it leaves or removes it"
