"""How far back each layer of a model attends."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from transformers import PreTrainedConfig

__all__ = ["FULL", "Span", "layer_spans"]


class Span(NamedTuple):
    """The part of the past that a layer's token sees."""

    kind: Literal["full", "sliding", "chunked"]
    size: int = 0
    """Tokens of a window, the token itself included, or of a chunk."""

    def first(self, position: int) -> int:
        """Return the position of the first token that the one at ``position`` sees."""
        if self.kind == "sliding":
            return max(0, position - self.size + 1)
        if self.kind == "chunked":
            return position // self.size * self.size
        return 0


FULL = Span("full")


def layer_spans(config: PreTrainedConfig) -> list[Span]:
    """Return what each layer sees, as the configuration says; layers without attention count as full."""
    text: Any = config.get_text_config()
    window, chunk = getattr(text, "sliding_window", None), getattr(text, "attention_chunk_size", None)
    sliding = Span("sliding", window) if window else FULL
    chunked = Span("chunked", chunk) if chunk else FULL
    kinds = {"sliding_attention": sliding, "chunked_attention": chunked}
    types = getattr(text, "layer_types", None)
    if types is None:
        return [sliding if window else chunked] * text.num_hidden_layers
    return [kinds.get(kind, FULL) for kind in types]
