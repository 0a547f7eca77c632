"""The reference model: the policy as it was at the start of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from envgym_trainers.batch import Batch, Sample
from envgym_trainers.distributed.team import ALONE, Team
from envgym_trainers.learner.auxiliary import Auxiliary, annotate_tokens
from envgym_trainers.learner.scorer import TokenScorer
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import load_model
from envgym_trainers.recipe import StageRecipe

__all__ = ["ReferenceModel"]


class ReferenceModel(Auxiliary):
    """Fills ``reference_logprobs``.

    If only adapters are trained, the reference is the trained model with its adapters off, without a second copy.

    Args:
        recipe: ``auxiliary.reference.path`` names the model; by default it is the one that the run starts from.
        policy: the model that is trained, or what runs it.
        team: the processes over which it is sharded; each method is then called in all of them.
    """

    def __init__(self, recipe: StageRecipe, policy: LanguageModel | TokenScorer, team: Team = ALONE) -> None:
        path = recipe.auxiliary.reference.path
        shared = recipe.model.lora_rank > 0 and path in ("", recipe.model.path)
        config = recipe.model.model_copy(update={"lora_rank": 0, **({"path": path} if path else {})})
        if shared:
            self._scorer = policy if isinstance(policy, TokenScorer) else TokenScorer.of(policy)
        elif team.size == 1:
            self._scorer = TokenScorer.of(load_model(config))
        else:
            whole = load_model(config.model_copy(update={"device": "cpu"})) if team.leads else None
            self._scorer = TokenScorer.sharded(whole, team, config.dtype)
        self._adapters_off: Any = getattr(policy.model, "disable_adapter", None) if shared else None
        self._team = team
        self._temperature = recipe.sampling.temperature
        self._max_tokens = recipe.optimizer.micro_batch_tokens

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        """Fill ``reference_logprobs``, at the sampling temperature like the policy's."""

        def run(batch: Batch) -> Tensor:
            logprobs: Tensor = self._scorer(batch, self._temperature)[0]
            return logprobs

        with self._adapters_off() if self._adapters_off else contextlib.nullcontext():
            return annotate_tokens(
                samples,
                "reference_logprobs",
                run,
                pad_id=self._scorer.pad_id,
                max_tokens=self._max_tokens,
                team=self._team,
            )
