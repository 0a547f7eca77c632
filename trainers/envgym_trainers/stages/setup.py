"""Set up the parts of a stage: services, the environments that can run here, model, engine, collector."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from envgym.env.chat_env import ChatEnv
from envgym.env.registration import environments
from envgym.env.run_sync import run_sync
from envgym.env.services import Services
from envgym.errors import RecipeError, UserError
from envgym.policies.scripted import Player
from envgym.policies.selection import make_player
from envgym.rollout.cluster import Cluster
from envgym.rollout.collector import Collector
from envgym.rollout.mix import Mix, MixEntry
from envgym.runs.progress import Reporter, Status, duration
from envgym_trainers.chat.policy import EnginePolicy
from envgym_trainers.engine.interface import Engine
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import check_model
from envgym_trainers.recipe import StageRecipe

__all__ = [
    "EnvironmentSet",
    "TrainingSetup",
    "check_setup",
    "open_collector",
    "open_environments",
    "open_setup",
    "prepare_torch",
]


@dataclass(slots=True, kw_only=True)
class EnvironmentSet:
    """The environments of a run, opened before the model is loaded."""

    services: Services
    entries: Sequence[MixEntry]
    roles: Mapping[str, Player]
    """Players of the roles that the policy being run does not play."""
    cluster: Cluster | None = None
    """Plays the episodes; this process does without one."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Environments that cannot run here, with the reason."""


@dataclass(slots=True, kw_only=True)
class TrainingSetup:
    """The parts of a run, ready to use."""

    recipe: StageRecipe
    environments: EnvironmentSet
    language_model: LanguageModel
    engine: Engine
    collector: Collector
    decodings: Mapping[str, Player]
    """The policy as it is evaluated: ``greedy`` and ``sampled``."""
    warnings: Sequence[str] = ()
    """Settings that could not be had as the recipe has them."""

    @property
    def limits(self) -> str:
        """The limits of sampling, whoever chose them."""
        turn = self.recipe.sampling.max_tokens or self.language_model.turn_limit
        return f"context {self.language_model.context:,} tokens, turns of at most {turn:,}"

    @property
    def temperatures(self) -> dict[str, float]:
        """Temperature of each decoding."""
        return {"greedy": 0.0, "sampled": evaluation_temperature(self.recipe)}

    def episodes_status(self, total: int) -> Status:
        """Return a status that counts the next ``total`` episodes, and the tokens sampled for them."""
        counts, tokens = self.collector.counts, self.tokens_status()
        started, earlier = time.monotonic(), counts["episodes"]

        def status() -> str:
            ended = counts["episodes"] - earlier
            left = (time.monotonic() - started) / max(1, ended) * max(0, total - ended)
            estimate = f", ETA {duration(left)}" if ended else ""
            return f"{ended}/{max(total, ended)} episodes, {tokens()}{estimate}"

        return status

    def tokens_status(self) -> Status:
        """Return a status that counts the tokens sampled from now on."""
        engine = self.engine
        earlier = engine.statistics().sampled_tokens
        return lambda: f"{engine.statistics().sampled_tokens - earlier:,} tokens"

    @property
    def labels(self) -> list[str]:
        """Names of the environments, in the order of the recipe."""
        return [entry.label for entry in self.environments.entries]


def check_setup(recipe: StageRecipe) -> None:
    """Look for what the recipe names: model, environments with their settings, sandbox, judge, players of roles.

    Raises:
        UserError: something does not exist, or does not work here.
    """
    check_model(recipe.model)
    services = _services(recipe)
    try:
        entries, _ = _usable(recipe, services)
        offered: set[str] = set()
        for entry in entries:
            env = entry.make(services)
            offered |= env.tools.keys()
            env.close()
        _check_limits(recipe, offered)
        _check_roles(recipe, entries)
        Mix(entries, dict.fromkeys((entry.label for entry in entries), 1), recipe.seed)
    finally:
        run_sync(services.close())


def _services(recipe: StageRecipe) -> Services:
    sandbox, judge = recipe.sandbox, recipe.judge
    return Services(sandbox.name, sandbox.settings, judge.name, judge.settings, recipe.tools)


def prepare_torch(recipe: StageRecipe) -> None:
    """Set torch's seed, threads and determinism for this process."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    # Some kernels add in the order in which threads come; where there is no other kernel, torch warns.
    torch.use_deterministic_algorithms(recipe.reproducible, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def open_environments(recipe: StageRecipe, reporter: Reporter) -> AsyncIterator[EnvironmentSet]:
    """Open the environments that can run, here or on the recipe's cluster; close what they need at the end.

    Raises:
        UserError: something the recipe names does not exist or cannot run here.
    """
    prepare_torch(recipe)
    async with _services(recipe) as services:
        entries, left_out = _usable(recipe, services)
        for label, reason in left_out.items():
            reporter.say(f"left out: {label}: {reason}")
        if recipe.cluster.name:
            reporter.say(f"starting the workers of cluster {recipe.cluster.name!r}")
        async with _open_roles(recipe, entries) as roles, recipe.cluster.opened(services) as cluster:
            yield EnvironmentSet(
                services=services, entries=entries, roles=roles, cluster=cluster, left_out=left_out
            )


@contextlib.asynccontextmanager
async def open_setup(
    recipe: StageRecipe,
    environments: EnvironmentSet,
    language_model: LanguageModel,
    *,
    asynchronous: bool = False,
) -> AsyncIterator[TrainingSetup]:
    """Open the recipe's engine for the model, and a collector for the environments.

    Args:
        recipe: the run's recipe.
        environments: the environments that can run here.
        language_model: the model to train.
        asynchronous: the engine samples while the model is trained, and so needs weights of its own.

    Raises:
        UserError: the engine cannot run this model.
    """
    sampling = recipe.sampling
    own = asynchronous and recipe.engine.runs_model
    placed = await recipe.engine.placed(environments.cluster)
    engine = placed.make(
        language_model=language_model.copy() if own else language_model, concurrency=sampling.concurrency
    )
    try:

        def at(temperature: float, **cut: Any) -> EnginePolicy:
            return EnginePolicy(
                engine=engine,
                language_model=language_model,
                temperature=temperature,
                max_tokens=sampling.max_tokens,
                **cut,
            )

        policy = at(sampling.temperature)
        sampled = at(evaluation_temperature(recipe), **evaluation_cut(recipe))
        async with open_collector(recipe, environments, policy) as collector:
            if recipe.reproducible:
                collector.turnstile.ordered = True
                engine.follow(collector.turnstile.settled)
            yield TrainingSetup(
                recipe=recipe,
                environments=environments,
                language_model=language_model,
                engine=engine,
                collector=collector,
                decodings={"greedy": at(0.0), "sampled": sampled},
                warnings=clamped(recipe, language_model),
            )
    finally:
        await engine.close()


def evaluation_temperature(recipe: StageRecipe) -> float:
    """Return the temperature of sampled evaluation episodes."""
    return recipe.evaluate.temperature or recipe.sampling.temperature


def evaluation_cut(recipe: StageRecipe) -> dict[str, Any]:
    """Return which ids sampled evaluation episodes choose from, as settings of ``EnginePolicy``."""
    return recipe.evaluate.model_dump(include={"top_k", "top_p", "min_p"})


def clamped(recipe: StageRecipe, language_model: LanguageModel) -> list[str]:
    """Return a line for each setting that the model does not allow as it stands."""
    found = []
    context, max_tokens = recipe.model.context, recipe.sampling.max_tokens
    if context is not None and language_model.context < context:
        found.append(f"model.context = {context} is more than the model has; it is {language_model.context}")
    if max_tokens is not None and max_tokens >= language_model.context:
        found.append(
            f"sampling.max_tokens = {max_tokens} leaves no room for a prompt in a context of "
            f"{language_model.context}; turns end where the context does"
        )
    return found


@contextlib.asynccontextmanager
async def open_collector(
    recipe: StageRecipe, environments: EnvironmentSet, policy: Player
) -> AsyncIterator[Collector]:
    """Open a collector that plays ``policy`` under the recipe's limits."""
    sampling = recipe.sampling
    collector = Collector(
        environments.entries,
        policy,
        environments.services,
        seed=recipe.seed,
        concurrency=sampling.concurrency,
        retries=sampling.retries,
        deadline=sampling.deadline,
        failure_limit=sampling.failure_limit,
        roles=environments.roles,
        cluster=environments.cluster,
    )
    try:
        yield collector
    finally:
        await collector.close()


@contextlib.asynccontextmanager
async def _open_roles(recipe: StageRecipe, entries: Sequence[MixEntry]) -> AsyncIterator[dict[str, Player]]:
    """Open the players named in the recipe's ``[roles]``, and close them at the end.

    Raises:
        RecipeError: no environment has such a role.
        UserError: there is no such policy, or it cannot be loaded.
    """
    _check_roles(recipe, entries)
    async with contextlib.AsyncExitStack() as stack:
        made: dict[str, Player] = {}
        for role, chosen in recipe.roles.items():
            made[role] = make_player(chosen.policy, chosen.settings)
            stack.push_async_callback(made[role].close)
        yield made


def _check_limits(recipe: StageRecipe, offered: Collection[str]) -> None:
    if unknown := sorted(recipe.tools.limits.keys() - offered):
        known = ", ".join(sorted(offered)) or "none"
        raise RecipeError(
            f"tools.limits.{unknown[0]}: no environment of the mix offers that tool; they offer: {known}"
        )


def _check_roles(recipe: StageRecipe, entries: Sequence[MixEntry]) -> None:
    declared = sorted({role for entry in entries for role in environments.load(entry.env).roles})
    if unknown := sorted(recipe.roles.keys() - declared):
        known = ", ".join(declared) or "none"
        raise RecipeError(f"roles.{unknown[0]}: no environment of the mix has that role; they have: {known}")


def _usable(recipe: StageRecipe, services: Services) -> tuple[list[MixEntry], dict[str, str]]:
    """Return the entries that can run. Only ``sandbox = "auto"`` may leave one out; a named backend must work.

    The workers of a cluster look for a backend themselves, each on its machine.
    """
    kept: list[MixEntry] = []
    left_out: dict[str, str] = {}
    for entry in recipe.mix:
        kind: type[ChatEnv] = environments.load(entry.env)
        if kind.needs_sandbox and not recipe.cluster.name:
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
