"""Ten steps of learning, alone or as one process of several; run as a script, as each of them.

python ranks_at_work.py FOLDER
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch

from envgym.records import Message, Outcome, Score, Task, Trajectory, Turn, TurnTokens
from envgym.rollout.collector import Group
from envgym_trainers.distributed.joining import join
from envgym_trainers.distributed.team import ALONE, Team
from envgym_trainers.learner.following import follow
from envgym_trainers.learner.learner import Learner, make_updater
from envgym_trainers.learner.updater import Loss, Updater
from envgym_trainers.models.checkpoint import Checkpoint, save_checkpoint
from envgym_trainers.models.load import load_model
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import make_objective

STEPS = 10
SAVED = 5
"""The step after which a checkpoint is written."""

CASES: dict[str, dict[str, Any]] = {
    # What is clipped is the norm of all processes' gradients.
    "grpo": {"objective": {"name": "grpo", "beta": 0.5}, "optimizer": {"clip_norm": 0.05}},
    # Two updates a step, and log-probs of the old policy.
    "dapo": {"objective": "dapo", "updates": 2, "optimizer": {"gradient_checkpointing": "selective"}},
    "critic": {"objective": "ppo", "optimizer": {"gradient_checkpointing": "full"}},
    "adapters": {"objective": {"name": "grpo", "beta": 0.5}, "model": {"lora_rank": 2}},
    "bfloat16": {"objective": "grpo", "model": {"dtype": "bfloat16"}},
    # Two samples that make one micro-batch.
    "few": {"objective": "grpo", "groups": 1, "group_size": 2, "optimizer": {"micro_batch_tokens": 1024}},
}


def recipe_of(case: str, model: Path) -> ReinforcementRecipe:
    """Return the recipe of a case."""
    values = CASES[case]
    optimizer = {
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "micro_batch_tokens": 50,
        "weight_decay": 0.01,
        "gradient_checkpointing": "off",
    }
    return ReinforcementRecipe.model_validate(
        {
            "mix": [{"env": "e-v1"}],
            "mismatch_limit": 1e9,  # the log-probs of these trajectories are made up
            "steps": STEPS,
            "groups": 3,
            "group_size": 3,
            **values,
            "model": {"path": str(model), "context": 64, **values.get("model", {})},
            "optimizer": {**optimizer, **values.get("optimizer", {})},
        }
    )


def groups_of(recipe: ReinforcementRecipe, step: int) -> list[Group]:
    """Return groups with prompts that are shared, completions of many lengths, and scores."""
    rng = random.Random(step)

    def ids(count: int) -> list[int]:
        return [rng.randrange(10, 200) for _ in range(count)]

    def trajectory(task: Task, prompt: list[int], score: float) -> Trajectory:
        completion = ids(rng.randrange(1, 14))
        tokens = TurnTokens(
            prompt_ids=prompt, completion_ids=completion, logprobs=[-1.0] * len(completion), policy_version=0
        )
        turn = Turn(messages=(), action=Message(role="assistant", content=""), tokens=tokens)
        return Trajectory(
            env="e",
            task=task,
            seed=0,
            turns=[turn],
            outcome=Outcome.completed(),
            score=Score(value=score, accuracy=score),
        )

    found = []
    for number in range(recipe.groups):
        task, prompt = Task(id=f"t{number}", split="train", messages=()), ids(4 + number)
        scores = [float(i % 2) for i in range(recipe.group_size)]
        found.append(Group(env="e", task=task, trajectories=[trajectory(task, prompt, s) for s in scores]))
    return found


def learn(case: str, model: Path, place: Path, team: Team = ALONE, resume: Path | None = None) -> None:
    """Learn, and leave weights and metrics in ``place``; from a checkpoint on, if there is one to resume from."""
    recipe = recipe_of(case, model)
    torch.manual_seed(0)
    start = recipe.model
    if resume and not start.lora_rank:
        start = start.model_copy(update={"path": str(resume / "model")})
    language_model = load_model(start)
    learner = Learner(recipe, make_objective(recipe.objective), language_model, team)
    if resume:
        learner.updater.resume(Checkpoint(folder=resume))
    rows = []
    for step in range(SAVED if resume else 0, STEPS):
        rows.append(learner.learn(groups_of(recipe, step), step + 1))
        if step + 1 == SAVED:
            updater = learner.updater
            save_checkpoint(place, SAVED, language_model, updater.state(), {}, write_shards=updater.write_shards)
    team.end()
    weights = {name: parameter.detach() for name, parameter in language_model.model.named_parameters()}
    place.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": weights, "rows": rows}, place / "found.pt")


def main(folder: Path) -> None:
    """Do in one of several processes what the test did in one, and go on from where that one stopped."""
    team = join("cpu")
    torch.set_num_threads(1)
    team.watch(lambda rank: None)
    model = folder / "model"
    if team.leads:
        for case in CASES:
            learn(case, model, folder / "two" / case, team)
            learn(case, model, folder / "one-two" / case, team, folder / "one" / case / f"step-{SAVED:06d}")
        return

    def begin(values: dict[str, Any]) -> tuple[Updater, Loss]:
        recipe = ReinforcementRecipe.model_validate(values["recipe"])
        objective = make_objective(recipe.objective)
        return make_updater(recipe, objective, None, team)[0], objective.loss

    follow(team, begin)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
