"""What every stage sets up: services, the environments that can run here, model, engine, collector."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import torch

from envgym.collect import Collector
from envgym.core import ChatEnv
from envgym.errors import RecipeError, UserError
from envgym.mix import MixEntry
from envgym.policy import Policy
from envgym.progress import Reporter
from envgym.registry import environments
from envgym.services import Services
from envgym_trainers.engine.engine import Engine
from envgym_trainers.engine.policy import EnginePolicy
from envgym_trainers.models import LanguageModel, load_model
from envgym_trainers.recipe import StageRecipe

__all__ = ["Workbench", "open_workbench"]


@dataclass(slots=True, kw_only=True)
class Workbench:
    """The parts of a run, ready to use."""

    recipe: StageRecipe
    services: Services
    entries: Sequence[MixEntry]
    left_out: dict[str, str] = field(default_factory=dict)
    """Environments that cannot run here, with the reason."""
    language_model: LanguageModel
    engine: Engine
    policy: EnginePolicy
    collector: Collector

    @property
    def labels(self) -> list[str]:
        """Names of the environments, in the order of the recipe."""
        return [entry.label for entry in self.entries]

    def collector_for(self, policy: Policy) -> Collector:
        """A collector like the run's own that plays another policy."""
        return _collector(self.recipe, self.entries, policy, self.services)


@contextlib.asynccontextmanager
async def open_workbench(
    recipe: StageRecipe, reporter: Reporter, model_path: str | None = None
) -> AsyncIterator[Workbench]:
    """Set up a run, and free what it took at the end.

    Args:
        recipe: what to run.
        reporter: told what was left out.
        model_path: weights to go on from, instead of the recipe's.

    Raises:
        UserError: something the recipe names does not exist or cannot run here.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    async with Services(sandbox=recipe.sandbox) as services:
        entries, left_out = _usable(recipe, services)
        for label, reason in left_out.items():
            reporter.say(f"left out: {label}: {reason}")
        language_model = load_model(recipe.model.model_copy(update={"path": model_path or recipe.model.path}))
        engine, policy = _sampler(recipe, language_model)
        collector = _collector(recipe, entries, policy, services)
        try:
            yield Workbench(
                recipe=recipe,
                services=services,
                entries=entries,
                left_out=left_out,
                language_model=language_model,
                engine=engine,
                policy=policy,
                collector=collector,
            )
        finally:
            await collector.close()
            engine.close()


def _sampler(recipe: StageRecipe, language_model: LanguageModel) -> tuple[Engine, EnginePolicy]:
    return EnginePolicy.over(
        language_model,
        slots=recipe.sampling.concurrency,
        max_tokens=recipe.sampling.max_tokens,
        temperature=recipe.sampling.temperature,
    )


def _collector(recipe: StageRecipe, entries: Sequence[MixEntry], policy: Policy, services: Services) -> Collector:
    sampling = recipe.sampling
    return Collector(
        entries,
        policy,
        services,
        seed=recipe.seed,
        concurrency=sampling.concurrency,
        retries=sampling.retries,
        deadline=sampling.deadline,
        failure_limit=sampling.failure_limit,
    )


def _usable(recipe: StageRecipe, services: Services) -> tuple[list[MixEntry], dict[str, str]]:
    """Entries that can run here. Only ``sandbox = "auto"`` may leave one out; a named backend must work."""
    kept: list[MixEntry] = []
    left_out: dict[str, str] = {}
    for entry in recipe.mix:
        kind: type[ChatEnv] = environments.load(entry.env)
        if kind.needs_sandbox:
            try:
                services.backend()
            except UserError as error:
                if recipe.sandbox != "auto":
                    raise
                left_out[entry.label] = str(error)
                continue
        kept.append(entry)
    if not kept:
        raise RecipeError(f"no environment of the mix can run here: {'; '.join(left_out.values())}")
    return kept, left_out
