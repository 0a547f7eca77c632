"""A learnt reward model: a frozen classifier with one label, whose output is the score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import AutoModelForSequenceClassification

from envgym.errors import UserError
from envgym_trainers.batch import Sample
from envgym_trainers.learner.auxiliary import Auxiliary
from envgym_trainers.models.placement import resolve_device
from envgym_trainers.recipe import StageRecipe

__all__ = ["RewardModel"]


class RewardModel(Auxiliary):
    """Scores a member by its last token sequence, as the policy's tokenizer wrote it.

    Args:
        recipe: ``auxiliary.reward.path`` is a folder of transformers' sequence-classification form, with one label
            and the policy's vocabulary.

    Raises:
        UserError: no path, or no such model in it.
    """

    def __init__(self, recipe: StageRecipe) -> None:
        path = recipe.auxiliary.reward.path
        if not path:
            raise UserError("the objective scores with a reward model: set auxiliary.reward.path to its folder")
        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise UserError(f"auxiliary.reward.path: {path!r} holds no sequence classifier: {error}") from error
        if self._model.config.num_labels != 1:
            raise UserError(f"auxiliary.reward.path: {path!r} has {self._model.config.num_labels} labels, not one")

        self._model = self._model.eval().to(resolve_device(recipe.model.device))

    @torch.inference_mode()
    def rescore(self, samples: Sequence[Sequence[Sample]], scores: Sequence[float]) -> list[float]:
        """Return the model's score of each member; missing members stay missing."""
        return [
            score if math.isnan(score) or not own else self._score(own[-1].ids)
            for own, score in zip(samples, scores, strict=True)
        ]

    def _score(self, ids: torch.Tensor) -> float:
        logits = self._model(input_ids=ids[None].to(self._model.device)).logits
        return float(logits[0, 0])
