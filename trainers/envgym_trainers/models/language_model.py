"""A causal language model with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

__all__ = ["LanguageModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A model with the tokenizer that goes with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int

    @property
    def pad_id(self) -> int:
        """Any id that may stand on padding, which nothing attends to."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def save(self, folder: Path) -> None:
        """Write what ``load_model`` reads: weights (safetensors; adapters merged), configuration, tokenizer."""
        transformers_logging.disable_progress_bar()
        model: Any = self.model
        if hasattr(model, "peft_config"):
            model.get_base_model().save_pretrained(folder, state_dict=_merged(model.get_base_model()))
        else:
            model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _merged(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The base model's weights with the adapters added, which stay apart in ``model`` itself.

    Merging in place and taking it back would leave rounding in the base weights at every checkpoint.
    """
    state: dict[str, torch.Tensor] = {
        name.replace(".base_layer", ""): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight = state[f"{name}.weight"]
            deltas = [module.get_delta_weight(adapter).detach() for adapter in module.active_adapters]
            state[f"{name}.weight"] = weight + torch.stack(deltas).sum(0).to(weight.dtype)
    return state
