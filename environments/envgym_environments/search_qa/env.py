"""Questions that take one or more searches to answer."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Sequence
from typing import ClassVar

from envgym.env.answers import call, fenced_answer, reference_of, script
from envgym.env.chat_env import ChatEnv
from envgym.env.rubric import Reward, Rubric
from envgym.env.tools import Tool, ToolInputError, collect_tools, tool
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.tasks.procedural import ProceduralTasks, stable_id
from envgym_environments.search_qa.config import SearchConfig
from envgym_environments.search_qa.corpus_files import file_index, file_questions
from envgym_environments.search_qa.index import Index, Retriever
from envgym_environments.search_qa.matching import score_answer
from envgym_environments.search_qa.questions import QuestionKind, draw_question
from envgym_environments.search_qa.remote import RemoteRetriever
from envgym_environments.search_qa.world import Document, World, make_world

__all__ = ["SearchQA"]

_WITHHELD = 0.1
"""Share of facts that no document states, if unanswerable questions are asked."""


class SearchQA(ChatEnv):
    """Look facts up in a corpus, follow them from document to document, and answer.

    Only the fenced answer in the last message counts. One answer is compared by exact match, a set entity by
    entity; with ``grader = "judge"``, a judge sees the answers that do not match.
    """

    class Config(SearchConfig):
        """Settings of ``SearchQA``: the fictional world, or files; the search engine; the reward."""

    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    config: Config

    def make_tools(self) -> dict[str, Tool]:
        """Return every tool; a remote retriever cannot open a document by its title."""
        tools = collect_tools(self)
        if self.config.retriever_url:
            del tools["open_document"]
        return tools

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return questions about the fictional world, made on demand, or those of the files.

        Raises:
            DataError: a file is missing or malformed; the corpus is read here too, so that a fault shows early.
            UserError: the settings name a model or a judge that is not available.
        """
        s = self.config
        if not s.retriever_url:
            self._index()
        if s.grader == "judge":
            self.services.judge()
        if s.question_file:
            return file_questions(split, s.question_file, s.held_out_file, self._system())
        return ProceduralTasks(self._generate, split, s.size, s.task_seed)

    def gold(self, task: Task) -> Sequence[Message]:
        """Return a search for each entity on the way, where that is known, then the answer."""
        golds, all_of = _golds(task)
        path = reference_of(task).get("path")
        searches = [call("search", query=entity) for entity in path] if isinstance(path, list) else []
        return script(searches, "; ".join(golds) if all_of else golds[0])

    def novice(self, task: Task) -> Sequence[Message]:
        """Return the searches, and then one step too few: the last entity looked up, not what is said of it."""
        path = reference_of(task).get("path")
        if not isinstance(path, list) or not path:
            return script([], "nobody")
        return script([call("search", query=entity) for entity in path], str(path[-1]))

    async def score(self, trajectory: Trajectory) -> Score:
        """Return 1 for a right answer; ``f1_weight`` and ``format_weight`` move shares to other components.

        Raises:
            VerifierError: the judge cannot be reached.
        """
        s = self.config
        golds, all_of = _golds(trajectory.task)
        answer = fenced_answer(trajectory)
        exact, f1 = score_answer(answer or "", golds, all_of=all_of)
        is_exact = exact or s.grader == "exact_match"
        right = exact if is_exact else await self._judged(trajectory.task, answer or "")
        rubric = Rubric(
            Reward(name=s.grader, function=lambda _: right, weight=1 - s.f1_weight - s.format_weight),
            Reward(name="f1", function=lambda _: f1, weight=s.f1_weight),
            Reward(name="format", function=lambda _: float(answer is not None), weight=s.format_weight),
        )
        return await rubric.score(trajectory)

    async def _judged(self, task: Task, answer: str) -> float:
        golds, all_of = _golds(task)
        reference = ("; " if all_of else " or ").join(golds)
        fenced = f"<answer>{answer}</answer>"
        return float((await self.services.judge().grade(task.messages[-1].content, fenced, reference)).correct)

    @tool(cache=True)
    async def search(self, query: str) -> str:
        """Find documents by their words."""
        top_k = self.config.top_k
        if self.config.retriever_url:
            found = await self._remote().search(query, top_k)
        elif self.config.retriever == "embeddings":  # a forward pass, which must not block other episodes
            found = await asyncio.to_thread(self._index().search, query, top_k)
        else:
            found = self._index().search(query, top_k)
        return "\n".join(map(self._snippet, found)) or "no document matches"

    @tool(cache=True)
    async def open_document(self, title: str) -> str:
        """Read the document of that title."""
        found = self._index().by_title(title)
        if not found:
            raise ToolInputError(f"no document has the title {title[:80]!r}")
        return "\n".join(document.text for document in found)

    def _snippet(self, document: Document) -> str:
        limit = self.config.snippet_chars
        text = document.text if len(document.text) <= limit else document.text[:limit].rstrip() + " ..."
        return f"{document.title}: {text}"

    def _remote(self) -> RemoteRetriever:
        """Return the connection to the remote retriever, which all episodes of the run share."""
        url, seconds = self.config.retriever_url, self.config.retriever_seconds
        return self.services.keep((SearchQA, url, seconds), lambda: RemoteRetriever(url, seconds))

    def _index(self) -> Index:
        s = self.config
        return file_index(s.corpus_file, s.retriever, s.embedding_model) if s.corpus_file else self._fiction()[1]

    def _fiction(self) -> tuple[World, Index]:
        s = self.config
        withheld = _WITHHELD if s.unanswerable_share else 0.0
        return _fictional_world(
            s.world_seed,
            s.documents,
            s.distractors,
            set_relations=s.set_share > 0,
            withheld=withheld,
            retriever=s.retriever,
            embedding_model=s.embedding_model,
        )

    def _generate(self, rng: random.Random, split: Split) -> Task:
        s = self.config
        hops, draw = rng.choice(s.hops), rng.random()
        kind: QuestionKind = "single"
        if draw < s.set_share + s.unanswerable_share:
            kind = "set" if draw < s.set_share else "unanswerable"
        question = draw_question(rng, self._fiction()[0], hops, kind)
        return Task(
            id=f"{hops}-hop/{stable_id(question.text)}",
            split=split,
            messages=(self._system(), Message(role="user", content=question.text)),
            reference={
                "answers": list(question.answers),
                "all_of": kind == "set",
                "path": list(question.path),
            },
            difficulty=float(hops),
            problem=f"{s.world_seed} {question.facts}",
            metadata={"kind": kind},
        )

    def _system(self) -> Message:
        text = "Search, then answer. Put the answer in <answer></answer>."
        if self.config.set_share:
            text += " Put ; between several answers."
        if self.config.unanswerable_share:
            text += " Answer unknown if no document tells."
        return Message(role="system", content=text)


@functools.lru_cache(maxsize=4)
def _fictional_world(
    seed: int,
    documents: int,
    distractors: int,
    *,
    set_relations: bool,
    withheld: float,
    retriever: Retriever,
    embedding_model: str,
) -> tuple[World, Index]:
    """Return the world, shared by every instance in this process: neither the world nor its index ever changes."""
    world = make_world(seed, documents, set_relations=set_relations, withheld=withheld, distractors=distractors)
    return world, Index(world.documents, retriever, embedding_model)


def _golds(task: Task) -> tuple[list[str], bool]:
    """Return the golds, and whether all of them are asked for."""
    reference = reference_of(task)
    answers = reference["answers"]
    return [str(a) for a in answers] if isinstance(answers, list) else [], bool(reference.get("all_of"))
