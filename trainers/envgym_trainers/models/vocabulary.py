"""Ids that a model has and its tokenizer does not: padding of the embedding, holes among the added tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["silence", "silence_unknown_ids", "unknown_ids"]

_NEVER = -1e30
"""Logit of such an id: its probability is exactly 0, at any temperature, and 0 times it is no NaN."""
_NEVER_HALF = -3e4
"""The same within float16."""


def silence_unknown_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the model give no probability to ids without a token; the engine and the trainer see the same logits.

    Such an id decodes to nothing, so that a record's text and its ids would disagree. The weights do not change.
    """
    silence(model, unknown_ids(model, tokenizer))


def unknown_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return the ids that the model's head has and the tokenizer does not. [n] int64"""
    untyped: Any = model
    head = untyped.get_output_embeddings()
    rows = 0 if head is None else head.weight.shape[0]
    unknown = torch.ones(rows, dtype=torch.bool)
    unknown[[i for i in tokenizer.get_vocab().values() if i < rows]] = False
    return unknown.nonzero().flatten()


def silence(model: PreTrainedModel, ids: Tensor) -> None:
    """Make the model give no probability to ``ids``, [n] int64."""
    if not len(ids):
        return
    untyped: Any = model
    head = untyped.get_output_embeddings()
    unknown = torch.zeros(head.weight.shape[0], dtype=torch.bool)
    unknown[ids] = True

    def silent(logits: Tensor) -> Tensor:
        never = _NEVER_HALF if logits.dtype is torch.float16 else _NEVER
        return logits.masked_fill(unknown.to(logits.device), never)

    def after_model(module: nn.Module, arguments: Any, output: Any) -> Any:
        if getattr(output, "logits", None) is not None:
            output["logits"] = silent(output.logits)
        return output

    head.register_forward_hook(lambda module, arguments, logits: silent(logits))
    # What a model does to the logits of its head, such as soft caps, would lift them again.
    model.register_forward_hook(after_model)
