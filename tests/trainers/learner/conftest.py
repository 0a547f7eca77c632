"""A learner over the tiny model, and a look at what it hands to its updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from envgym_trainers.batch import Batch, Sample, Unit, as_units, collate
from envgym_trainers.learner.learner import Learner
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import make_objective


@pytest.fixture(scope="session")
def batch_of() -> Callable[[list[list[int]]], Batch]:
    """A batch of rows of ids, of each of which the last two were sampled."""

    def make(rows: list[list[int]]) -> Batch:
        samples = []
        for row in rows:
            ids = torch.tensor(row)
            mask = torch.arange(len(row)) >= len(row) - 2
            samples.append(Sample(ids=ids, mask=mask, logprobs=ids.float(), group="g", version=0))
        return collate(as_units(samples), 0)

    return make


@pytest.fixture
def language_model(make_language_model: Callable[[], LanguageModel]) -> LanguageModel:
    return make_language_model()


@pytest.fixture
def make_learner(language_model: LanguageModel, model_folder: Any) -> Callable[..., Learner]:
    """``make_learner({"name": "grpo"}, updates=…)``."""

    def make(objective: dict[str, Any], **values: Any) -> Learner:
        recipe = ReinforcementRecipe.model_validate(
            {
                "mix": [{"env": "e-v1"}],
                "model": {"path": str(model_folder)},
                "optimizer": {"learning_rate": 1e-2},
                "objective": objective,
                "mismatch_limit": 1e9,  # the log-probs of these trajectories are made up
                **values,
            }
        )
        return Learner(recipe, make_objective(objective), language_model)

    return make


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Learner], list[list[Sample]]]:
    """Record the samples of each update instead of taking it."""

    def run(learner: Learner) -> list[list[Sample]]:
        seen: list[list[Sample]] = []

        def update(units: Sequence[Unit], loss: object, **settings: object) -> dict[str, float]:
            seen.append([sample for unit in units for sample in unit])
            return {"loss": float(len(units))}

        monkeypatch.setattr(learner.updater, "update", update)
        return seen

    return run
