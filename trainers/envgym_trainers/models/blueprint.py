"""What a process needs to know of a model that another one has loaded, to make room for its weights."""

from __future__ import annotations

import json
from typing import Any, Self

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from envgym.config import Section
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import with_lora
from envgym_trainers.models.vocabulary import silence, unknown_ids

__all__ = ["Blueprint"]


class Blueprint(Section):
    """The architecture of a language model, without its weights; JSON."""

    config: dict[str, Any]
    """transformers' configuration."""
    pad_id: int
    unknown: list[int]
    """Ids that get no probability."""
    lora_rank: int
    """0 without adapters."""

    @classmethod
    def of(cls, language_model: LanguageModel) -> Self:
        """Describe a loaded model."""
        model: Any = language_model.model
        adapters = getattr(model, "peft_config", None)
        whole = model.get_base_model() if adapters else model
        return cls(
            config=json.loads(whole.config.to_json_string(use_diff=False)),
            pad_id=language_model.pad_id,
            unknown=unknown_ids(whole, language_model.tokenizer).tolist(),
            lora_rank=next(iter(adapters.values())).r if adapters else 0,
        )

    def build(self) -> PreTrainedModel:
        """Make the model in float32 on the CPU, its parameters being memory that nothing was written to."""
        values = dict(self.config)
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.tie_weights()
            silence(model, torch.tensor(self.unknown, dtype=torch.int64))
            if self.lora_rank:
                model.requires_grad_(False)
                model = with_lora(model, self.lora_rank)
        built: PreTrainedModel = model.eval()
        return built
