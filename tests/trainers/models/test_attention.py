"""Which models attend to everything."""

from __future__ import annotations

import pytest
from transformers import Gemma2Config, LlamaConfig, MambaConfig, MistralConfig, PreTrainedConfig

from envgym_trainers.models.attention import partial_attention


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
