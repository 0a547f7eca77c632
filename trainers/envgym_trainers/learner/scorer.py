"""The model as a learner runs it, in this process alone or in shards over several."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from envgym_trainers.batch import Batch
from envgym_trainers.distributed.sharding import fill, shard
from envgym_trainers.distributed.team import Team
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.prefix import NO_PREFIX, Prefix
from envgym_trainers.learner.states import know_sharing, shares_prefixes
from envgym_trainers.models.blueprint import Blueprint
from envgym_trainers.models.head import head_form, know_head_form
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.placement import DTYPES, Dtype

__all__ = ["TokenScorer", "scorer_of", "unsharded_copy"]


class TokenScorer(nn.Module):
    """Log-probs of sampled tokens. What is sharded runs through ``forward`` alone, which gathers the weights.

    Args:
        model: the model, which is not copied.
        pad_id: any id of the vocabulary.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.narrow = False
        """True if the trained weights are saved in 16 bits, which adapters never are."""

    @classmethod
    def of(cls, language_model: LanguageModel) -> Self:
        """Run a model in this process."""
        return cls(language_model.model, language_model.pad_id)

    @classmethod
    def sharded(cls, language_model: LanguageModel | None, team: Team, dtype: Dtype) -> Self:
        """Make a copy of a model in shards over the team.

        Args:
            language_model: the leader's; ``None`` elsewhere.
            team: of more than one process, all of which call this.
            dtype: of the passes; the weights are float32.
        """
        scorer = cls(*unsharded_copy(language_model, team))
        scorer.narrow = dtype != "float32" and not hasattr(scorer.model, "peft_config")
        shard(scorer, team, DTYPES[dtype])
        fill(scorer.model, language_model.model if language_model else None, team)
        return scorer

    def forward(
        self, batch: Batch, temperature: float, *, prefix: Prefix = NO_PREFIX, frugal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return log-probs and entropies as ``token_logprobs`` does."""
        return token_logprobs(self.model, batch.to(self.model.device), temperature, prefix=prefix, frugal=frugal)


def scorer_of(language_model: LanguageModel | None, team: Team, dtype: Dtype) -> TokenScorer:
    """Return what runs the leader's model, in shards over the team if there is more than one process."""
    if team.size == 1 and language_model is not None:
        return TokenScorer.of(language_model)
    return TokenScorer.sharded(language_model, team, dtype)


def unsharded_copy(language_model: LanguageModel | None, team: Team) -> tuple[PreTrainedModel, int]:
    """Return a model like the leader's, without its weights, and its padding id; see ``TokenScorer.sharded``."""
    mine = None
    if language_model is not None:
        model = language_model.model
        mine = (Blueprint.of(language_model).model_dump(), head_form(model), shares_prefixes(model))
    found, form, shares = next(told for told in team.exchange(mine) if told)
    blueprint = Blueprint.model_validate(found)
    model = blueprint.build()
    # It cannot be found out of a model without weights.
    know_head_form(model, form)
    know_sharing(model, shares)
    return model, blueprint.pad_id
