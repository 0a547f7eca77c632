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
from envgym_trainers.models import LanguageModel
from envgym_trainers.recipe import StageRecipe

__all__ = ["Site", "Workbench", "open_collector", "open_site", "open_workbench"]


@dataclass(slots=True, kw_only=True)
class Site:
    """What is there before any model is."""

    services: Services
    entries: Sequence[MixEntry]
    left_out: dict[str, str] = field(default_factory=dict)
    """Environments that cannot run here, with the reason."""


@dataclass(slots=True, kw_only=True)
class Workbench:
    """The parts of a run, ready to use."""

    recipe: StageRecipe
    site: Site
    language_model: LanguageModel
    engine: Engine
    collector: Collector

    @property
    def labels(self) -> list[str]:
        """Names of the environments, in the order of the recipe."""
        return [entry.label for entry in self.site.entries]


@contextlib.asynccontextmanager
async def open_site(recipe: StageRecipe, reporter: Reporter) -> AsyncIterator[Site]:
    """Find out which environments can run here; the sandbox they share is closed at the end.

    Raises:
        UserError: something the recipe names does not exist or cannot run here.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    async with Services(recipe.sandbox.name, recipe.sandbox.settings, recipe.judge) as services:
        entries, left_out = _usable(recipe, services)
        for label, reason in left_out.items():
            reporter.say(f"left out: {label}: {reason}")
        yield Site(services=services, entries=entries, left_out=left_out)


@contextlib.asynccontextmanager
async def open_workbench(
    recipe: StageRecipe, site: Site, language_model: LanguageModel
) -> AsyncIterator[Workbench]:
    """Put an engine behind the model, and a collector in front of the environments."""
    engine, policy = EnginePolicy.over(
        language_model,
        slots=recipe.sampling.concurrency,
        max_tokens=recipe.sampling.max_tokens,
        temperature=recipe.sampling.temperature,
    )
    try:
        async with open_collector(recipe, site, policy) as collector:
            yield Workbench(
                recipe=recipe, site=site, language_model=language_model, engine=engine, collector=collector
            )
    finally:
        engine.close()


@contextlib.asynccontextmanager
async def open_collector(recipe: StageRecipe, site: Site, policy: Policy) -> AsyncIterator[Collector]:
    """A collector that plays ``policy`` under the recipe's limits."""
    sampling = recipe.sampling
    collector = Collector(
        site.entries,
        policy,
        site.services,
        seed=recipe.seed,
        concurrency=sampling.concurrency,
        retries=sampling.retries,
        deadline=sampling.deadline,
        failure_limit=sampling.failure_limit,
    )
    try:
        yield collector
    finally:
        await collector.close()


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
                if recipe.sandbox.name != "auto":
                    raise
                left_out[entry.label] = str(error)
                continue
        kept.append(entry)
    if not kept:
        raise RecipeError(f"no environment of the mix can run here: {'; '.join(left_out.values())}")
    return kept, left_out
