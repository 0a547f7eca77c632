"""A causal language model with its tokenizer."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from envgym.chat.tool_formats import HermesFormat, ToolFormat
from envgym_trainers.models.turn_ends import turn_ends

__all__ = ["LanguageModel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A model with its tokenizer, context and tool format, as engines, policies and learners use it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int
    """Maximum number of tokens in a conversation."""
    tool_format: ToolFormat = dataclasses.field(default_factory=HermesFormat)
    """The model's syntax of tool calls."""

    @property
    def device(self) -> torch.device:
        """Device of the weights, and so of every tensor that meets them."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.model.dtype

    @property
    def turn_limit(self) -> int:
        """Tokens of one turn, as the model's generation configuration says; where it does not, the context's."""
        generation = getattr(self.model, "generation_config", None)
        stated: int | None = getattr(generation, "max_new_tokens", None)
        return min(stated or self.context, self.context)

    @property
    def pad_id(self) -> int:
        """An id for padding; any will do, as nothing attends to it."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a turn; the chat template's own comes first.

        Raises:
            UserError: the tokenizer has none.
        """
        return turn_ends(self.tokenizer, self.model)

    def copy(self) -> LanguageModel:
        """Return a model of equal weights that shares none with this one, adapters merged; not for training."""
        model: Any = copy.deepcopy(self.model)
        if hasattr(model, "peft_config"):
            model = model.merge_and_unload()
        return dataclasses.replace(self, model=model.requires_grad_(False))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights by name, adapters merged; tensors without an adapter share memory with the model."""
        model: Any = self.model
        return _merged(model.get_base_model()) if hasattr(model, "peft_config") else model.state_dict()

    def save(self, folder: Path) -> None:
        """Write a folder for ``load_model``: weights (safetensors; adapters merged), configuration, tokenizer."""
        transformers_logging.disable_progress_bar()
        model: Any = self.model
        if hasattr(model, "peft_config"):
            model.get_base_model().save_pretrained(folder, state_dict=self.weights())
        else:
            model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _merged(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the base model's weights with the adapters added; ``model`` itself is unchanged.

    Merging in place and unmerging would leave rounding errors in the base weights at every checkpoint.
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
