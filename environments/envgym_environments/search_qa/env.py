"""Questions that take one or more searches to answer."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import ClassVar

import pydantic

from envgym.core import ChatEnv, EnvSettings
from envgym.data import Message, Score, Split, Task, Trajectory
from envgym.rubric import Reward, Rubric
from envgym.tasks import ProceduralTasks, stable_id
from envgym.tools import ToolInputError, tool
from envgym.verifiers import exact_match, f1_score
from envgym_environments.answers import MAX_FORMAT_WEIGHT, call, fenced_answer, has_format, reference_of, script
from envgym_environments.search_qa.index import Index
from envgym_environments.search_qa.questions import draw_question
from envgym_environments.search_qa.world import World, make_world

__all__ = ["SearchQA", "SearchSettings"]

_SYSTEM = Message(role="system", content="Search, then answer. Put the answer in <answer></answer>.")


class SearchSettings(EnvSettings):
    """Settings of ``SearchQA``."""

    documents: int = pydantic.Field(default=500, ge=20, le=100_000, description="entities of the fictional world")
    world_seed: int = pydantic.Field(default=0, description="names the fictional world")
    hops: tuple[int, ...] = pydantic.Field(
        default=(1, 2), min_length=1, description="facts that lead to an answer, 1 to 5, drawn equally often"
    )
    top_k: int = pydantic.Field(default=1, ge=1, le=20, description="documents that a search returns")
    f1_weight: float = pydantic.Field(default=0.0, ge=0, le=1, description="share of the reward for token F1")
    format_weight: float = pydantic.Field(
        default=0.0, ge=0, le=MAX_FORMAT_WEIGHT, description="share of the reward for fencing an answer"
    )


class SearchQA(ChatEnv):
    """Look facts up in a corpus, follow them from document to document, and answer."""

    Settings = SearchSettings
    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    settings: SearchSettings

    def tasks(self, split: Split) -> Sequence[Task]:
        """Questions about the fictional world, made on demand."""
        return ProceduralTasks(self._generate, split, self.settings.size, self.settings.task_seed)

    def gold(self, task: Task) -> Sequence[Message]:
        """A search for each entity on the way, then the answer."""
        reference = reference_of(task)
        path, answers = reference.get("path"), reference["answers"]
        assert isinstance(answers, list)
        searches = [call("search", query=entity) for entity in path] if isinstance(path, list) else []
        return script(searches, "; ".join(map(str, answers)))

    async def score(self, trajectory: Trajectory) -> Score:
        """1 for an exact match."""
        s = self.settings
        rubric = Rubric(
            Reward(name="exact_match", function=_exact, weight=1 - s.f1_weight - s.format_weight),
            Reward(name="f1", function=_f1, weight=s.f1_weight),
            Reward(name="format", function=has_format, weight=s.format_weight),
        )
        return await rubric.score(trajectory)

    @tool
    async def search(self, query: str) -> str:
        """Find documents by their words."""
        found = _corpus(self.settings.world_seed, self.settings.documents)[1].search(query, self.settings.top_k)
        return "\n".join(map(str, found)) or "no document matches"

    @tool
    async def open_document(self, title: str) -> str:
        """Read the document of that title."""
        found = _corpus(self.settings.world_seed, self.settings.documents)[1].by_title(title)
        if found is None:
            raise ToolInputError(f"no document has the title {title[:80]!r}")
        return found.text

    def _generate(self, rng: random.Random, split: Split) -> Task:
        world, _ = _corpus(self.settings.world_seed, self.settings.documents)
        hops = rng.choice(self.settings.hops)
        question = draw_question(rng, world, hops)
        return Task(
            id=f"{hops}-hop/{stable_id(question.text)}",
            split=split,
            messages=(_SYSTEM, Message(role="user", content=question.text)),
            reference={"answers": list(question.answers), "path": list(question.path)},
            difficulty=float(hops),
        )


@functools.lru_cache(maxsize=4)
def _corpus(seed: int, documents: int) -> tuple[World, Index]:
    world = make_world(seed, documents)
    return world, Index(world.documents)


def _golds(trajectory: Trajectory) -> list[str]:
    answers = reference_of(trajectory.task)["answers"]
    return [str(a) for a in answers] if isinstance(answers, list) else []


def _exact(trajectory: Trajectory) -> float:
    answer = fenced_answer(trajectory)
    return float(answer is not None and exact_match(answer, _golds(trajectory)))


def _f1(trajectory: Trajectory) -> float:
    return f1_score(fenced_answer(trajectory) or "", _golds(trajectory))
