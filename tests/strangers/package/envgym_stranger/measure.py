"""A stage that trains nothing: it measures a policy on held-out tasks."""

from __future__ import annotations

from typing import Any

from envgym import Collector, MixEntry, Services
from envgym.evaluate import evaluate, mean_interval
from envgym.policies.interface import policies
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym.runs.stage import Stage


class Measure(Stage):
    """Measures a policy."""

    class Config(Stage.Config):
        """The recipe."""

        mix: tuple[MixEntry, ...]
        policy: str = "guesser"
        tasks: int = 4
        sandbox: str = "auto"

    config: Config

    async def run(self, folder: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
        """Play the tasks and write the summary."""
        recipe = self.config
        policy = policies.make(recipe.policy)
        async with Services(recipe.sandbox) as services:
            collector = Collector(recipe.mix, policy, services, seed=recipe.seed)
            labels = [entry.label for entry in recipe.mix]
            scores = await evaluate(collector, labels, split="held_out", limit=recipe.tasks)
            await collector.close()
        await policy.close()
        after = {label: mean_interval(list(found.rewards.values())).as_dict() for label, found in scores.items()}
        return folder.write_summary({"environments": {label: {"after": row} for label, row in after.items()}})
