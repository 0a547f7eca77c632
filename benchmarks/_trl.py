"""TRL's own training loop on samples that are given: shared by the scripts that compare with it.

Imported by interpreters that have TRL 1.16.0 and may not have envgym.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of one step."""

    ids: torch.Tensor  # [N, P + C], prompts of P tokens, then completions
    prompt: int
    lengths: Sequence[int]
    """Tokens of each completion that count."""
    advantages: torch.Tensor  # [N]


def train(
    model: Any,
    given: Callable[[int], Samples],
    count: int,
    *,
    tokenizer: Any = None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> None:
    """Train on ``given(step)`` at every step, ``count`` samples each; only TRL's sampling is replaced.

    Args:
        model: a model, or the folder of one.
        given: returns the samples of a step, counted from 0.
        count: samples per step.
        tokenizer: the model's, by default from its folder.
        callbacks: as of TRL's trainer.
        settings: those of ``GRPOConfig``.
    """

    class Given(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            samples = given(self.state.global_step)
            completions = samples.ids[:, samples.prompt :]
            mask = (torch.arange(completions.shape[1]) < torch.tensor(samples.lengths)[:, None]).long()
            return {
                "prompt_ids": samples.ids[:, : samples.prompt],
                "prompt_mask": torch.ones(count, samples.prompt, dtype=torch.long),
                "completion_ids": completions,
                "completion_mask": mask,
                "advantages": samples.advantages,
                "num_items_in_batch": mask.sum(),
            }

    with tempfile.TemporaryDirectory() as folder:
        quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        Given(
            model=model,
            processing_class=tokenizer,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(output_dir=folder, bf16=False, use_cpu=True, **quiet, **settings),
            train_dataset=Dataset.from_dict({"prompt": ["2 + 2 ="] * count}),
            callbacks=list(callbacks),
        ).train()
