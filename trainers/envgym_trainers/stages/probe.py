"""Compare the engine with the trainer on a completion that is sampled for this alone.

In asynchronous training a step may hold no token of the weights that it trains, so that it has nothing to compare;
an engine that did not take over the weights would go unnoticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch

from envgym.rollout.collector import Group
from envgym_trainers.batch import Sample, as_units, collate
from envgym_trainers.engine.interface import SamplingParams
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.mismatch import EngineMismatch, Mismatch
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.setup import TrainingSetup

__all__ = ["probe"]

_TOKENS = 16


async def probe(setup: TrainingSetup, recipe: ReinforcementRecipe, groups: Sequence[Group], version: int) -> None:
    """Sample a few tokens, compute their log-probs with the trainer's model, and compare.

    Args:
        setup: its engine has the weights ``version``, and so has its model, which nobody changes meanwhile.
        recipe: the run's recipe.
        groups: played by the policy; one of their prompts is used.
        version: the current version.

    Raises:
        EngineMismatch: they are further apart than ``mismatch_limit``.
        PolicyError: the engine stopped.
    """
    turns = (turn.tokens for group in groups for t in group.trajectories for turn in t.turns)
    tokens = next(filter(None, turns), None)
    if tokens is None:
        return
    prompt = tokens.prompt_ids[: setup.engine.capacity - _TOKENS]
    temperature = recipe.sampling.temperature
    session = setup.engine.open()
    try:
        sampled = await session.sample(
            prompt, SamplingParams(max_tokens=_TOKENS, temperature=temperature), seed=version
        )
    finally:
        await session.close()
    ids = torch.tensor(prompt + sampled.ids)
    sample = Sample(
        ids=ids,
        mask=torch.arange(len(ids)) >= len(prompt),
        logprobs=torch.cat([torch.full((len(prompt),), torch.nan), torch.tensor(sampled.logprobs)]),
        group="probe",
        version=sampled.version,
    )
    model = setup.language_model
    batch = collate(as_units([sample]), model.pad_id).to(model.device)

    def compare() -> Mismatch:
        mismatch = Mismatch()
        with torch.no_grad():
            mismatch.add(batch, token_logprobs(model.model, batch, temperature)[0], version)
        return mismatch

    mismatch = await asyncio.to_thread(compare)
    if mismatch.mean > recipe.mismatch_limit:
        raise EngineMismatch(mismatch.explain(recipe.mismatch_limit))
