"""The numbers of a model that its memory and its arithmetic depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SIZES", "ModelShape", "shape_of", "shape_of_size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A causal language model, counted. Widths are numbers of elements."""

    parameters: int
    active: int
    """Parameters that take part in one token's forward pass: without the experts that it is not routed to, and
    without an input embedding that is no output embedding as well."""
    largest_layer: int
    """Parameters of the largest layer, which is whole on each device while it runs."""
    adapted: int
    """Sum of inputs and outputs over all linear maps but the head: LoRA of rank r trains r times as many."""
    layers: int
    hidden: int
    queries: int
    """Width of the queries of a layer, all heads together."""
    keys: int
    """Width of the keys of a layer, all heads together."""
    inner: int
    """Width inside the feed-forward part, over the experts that a token is routed to."""
    vocabulary: int
    positions: int
    """Tokens of the longest conversation."""
    windows: tuple[int, ...] = ()
    """Tokens that the layers with a sliding window look back; the other layers see everything."""

    def cached(self, tokens: int) -> int:
        """Return the elements of keys and values that one conversation of ``tokens`` tokens has in the cache."""
        whole = (self.layers - len(self.windows)) * tokens
        return 2 * self.keys * (whole + sum(min(window, tokens) for window in self.windows))


def shape_of(config: Any) -> ModelShape:
    """Count the model of a ``transformers`` configuration; it is built without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_layers import GradientCheckpointingLayer

    text = config.get_text_config()
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    total = sum(p.numel() for p in model.parameters())
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or 1
    routed = (getattr(text, "num_experts_per_tok", None) or 1) if experts > 1 else 1
    in_experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    head_layer, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head_layer is not None and head_layer.weight is embedding.weight
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head_layer]
    inner = getattr(text, "moe_intermediate_size", None) or getattr(
        text, "intermediate_size", 4 * text.hidden_size
    )
    kinds = getattr(text, "layer_types", None) or ()
    window = getattr(text, "sliding_window", None) or 0
    return ModelShape(
        parameters=total,
        active=total - in_experts * (experts - routed) // experts - (0 if tied else embedding.weight.numel()),
        largest_layer=max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=total),
        adapted=sum(m.in_features + m.out_features for m in linear),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=heads * head,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head,
        inner=inner * routed,
        vocabulary=text.vocab_size,
        positions=getattr(text, "max_position_embeddings", None) or 2048,
        windows=tuple(window for kind in kinds if kind == "sliding_attention" and window),
    )


def _qwen(
    hidden: int, inner: int, layers: int, heads: int, *, keys: int, words: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": words,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32768,
    }


SIZES: Mapping[str, Mapping[str, Any]] = {
    "0.5B": _qwen(896, 4864, 24, 14, keys=2, words=151936, tied=True),
    "1.5B": _qwen(1536, 8960, 28, 12, keys=2, words=151936, tied=True),
    "7B": _qwen(3584, 18944, 28, 28, keys=4, words=152064, tied=False),
    "32B": _qwen(5120, 27648, 64, 40, keys=8, words=152064, tied=False),
    "70B": {
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
}
"""Shapes for recipes whose model is not chosen yet: Qwen2.5 (arXiv 2412.15115) from 0.5B to 32B, Llama 3.1
(arXiv 2407.21783) for 70B."""


def shape_of_size(size: str) -> ModelShape:
    """Return the shape that stands for a size, e.g. ``"7B"``.

    Raises:
        UnknownNameError: there is none.
    """
    from transformers import AutoConfig

    from envgym.errors import UnknownNameError

    if size not in SIZES:
        raise UnknownNameError("model size", size, SIZES)
    values = dict(SIZES[size])
    return shape_of(AutoConfig.for_model(values.pop("model_type"), **values))
