"""A policy is handed nothing from which the hidden reference, the task or the environment can be reached."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest
from toys import Adder

from envgym.env.chat_env import ChatEnv
from envgym.errors import PluginError
from envgym.policies.interface import Completion, Policy, PolicySession, policies
from envgym.policies.scripted import EmptyPolicy
from envgym.records import Message, Observation, Task, ToolSpec, Trajectory
from envgym.rollout.episode import rollout

SECRET = "the answer that no policy may see"


def reachable(*roots: object) -> Iterator[object]:
    """Everything that attributes, items, slots, closures, bound methods and containers lead to."""
    waiting, seen = list(roots), set[int]()
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type | types.ModuleType):
            continue
        seen.add(id(found))
        yield found
        waiting += getattr(found, "__dict__", {}).values()
        for kind in type(found).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            waiting += [getattr(found, name) for name in names if hasattr(found, name)]
        if isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set | frozenset):
            waiting += found
        elif isinstance(found, types.MethodType):
            waiting += [found.__self__, found.__func__]
        elif isinstance(found, types.FunctionType):
            waiting += [cell.cell_contents for cell in found.__closure__ or ()]


class Searcher(Policy, PolicySession):
    """Looks for the answer in all it is handed, and says it if it finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[Any] = []
        self.looked_at = 0

    def open(self, *handed: Any) -> PolicySession:
        self.handed += handed
        return self

    async def act(self, observation: Observation) -> Completion:
        self.handed.append(observation)
        found = list(reachable(*self.handed))
        self.looked_at = max(self.looked_at, len(found))
        assert not [x for x in found if isinstance(x, Task | Trajectory | ChatEnv)]
        told = [x for x in found if isinstance(x, str) and SECRET in x]
        return Completion(message=Message(role="assistant", content=told[0] if told else "?"))


class Vault(Adder):
    """Hides a text in the reference, and in an attribute of its own."""

    def _generate(self, *arguments: Any) -> Task:
        task = super()._generate(*arguments)
        self.secret = SECRET
        return Task(id=task.id, split=task.split, messages=task.messages, reference=SECRET)


async def test_a_policy_that_searches_all_it_is_handed_does_not_find_the_reference() -> None:
    env, policy = Vault(max_turns=2), Searcher()
    task = env.task_list("train")[0]
    trajectory = await rollout(env, policy, task, name="vault", seed=5)
    assert not trajectory.failed, trajectory.outcome.reason
    assert trajectory.reward == 0.0
    assert policy.looked_at > 20
    tools, seed, first = policy.handed[:3]
    assert all(isinstance(spec, ToolSpec) for spec in tools)
    assert first.messages == task.messages
    assert seed != trajectory.seed, "the environment's own draws could be made again from its seed"


def test_the_search_would_find_what_is_there() -> None:
    env = Vault()
    task = env.task_list("train")[0]
    for handed in (env, [task], {"a": (task,)}, env.score, lambda: task.reference):
        assert any(x == SECRET for x in reachable(handed)), handed


class Reader(EmptyPolicy):
    """Written for an interface that handed over the task."""

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:  # type: ignore[override]
        raise AssertionError(task.reference)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("envgym.policies.scripted:Expert", "is not a policy"),
        (f"{__name__}:Reader", "open.* cannot be called as open.*tools.*seed"),
    ],
)
def test_no_policy_that_wants_the_task_is_loaded(path: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        policies.load(path)
