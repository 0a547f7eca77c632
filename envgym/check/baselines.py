"""Baselines that do the same whatever the task asks: what pays them is learnt without learning the task."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from envgym.check.probes import Subject
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.policies.scripted import Script
from envgym.records import Message, Observation, Split, Task, ToolSpec

__all__ = ["OFTEN", "RepeatedAction", "constant_answers"]

OFTEN = 0.4
"""Mean success from which one answer for every task is a fault, unless the environment declares a ``chance``.
Half of the tasks are told from a third with the number of tasks below."""
_TASKS = 50
"""Number of tasks of each split."""
_DRAWN_FROM = 10_000
_FIRST = 6
"""Number of tasks after which an answer that was seldom right is given up."""
_MARGIN = 0.1
"""How far above a declared chance a mean may lie: two standard deviations."""
_ENOUGH = 3
"""Number of findings after which no more are looked for."""
_SHOWN = 60
_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_STOCK = ("yes", "true", "A", "1")
_REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Baseline:
    name: str
    policy: Policy


class RepeatedAction(Policy, PolicySession):
    """Says the same message in every turn of every episode.

    Args:
        message: the action.
    """

    def __init__(self, message: Message) -> None:
        super().__init__()
        self._message = message

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode; sessions have nothing to remember."""
        return self

    async def act(self, observation: Observation) -> Completion:
        """Say it."""
        return Completion(message=self._message)


def constant_answers(subject: Subject) -> Iterator[str]:
    """Yield the answers that are right too often although they are the same for every task."""
    by_split = [_spread(subject, split) for split in ("train", "held_out")]
    tasks = [task for pair in zip(*by_split, strict=False) for task in pair]
    limit = max(OFTEN, subject.env.chance + _MARGIN)
    found = 0
    for baseline in _baselines(_scripts(subject, tasks)):
        success = _success(subject, baseline.policy, tasks[:_FIRST])
        if fmean(success or [0.0]) < limit / 2:
            continue
        success += _success(subject, baseline.policy, tasks[_FIRST:])
        if fmean(success) >= limit:
            found += 1
            yield (
                f"{baseline.name} is right in {fmean(success):.0%} of {len(success)} tasks, whatever they ask; "
                f"less than {limit:.0%} is allowed"
            )
        if found == _ENOUGH:
            return


def _spread(subject: Subject, split: Split) -> list[Task]:
    """Return tasks drawn from all over a split, whose rows may be sorted by their answers, or alternate."""
    tasks = subject.env.task_list(split)
    places = range(min(len(tasks), _DRAWN_FROM))
    return [tasks[i] for i in random.Random(0).sample(places, min(len(places), _TASKS))]


def _scripts(subject: Subject, tasks: Sequence[Task]) -> list[tuple[Message, ...]]:
    """Return the expert's actions for each task, without the ids of calls, which differ for nothing."""
    try:
        scripts = [subject.env.gold(task) for task in tasks]
    except Exception:  # noqa: BLE001 - an expert that fails, or is missing, is another check's finding
        return []
    return [tuple(_bare(message) for message in script) for script in scripts]


def _bare(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(call, id="") for call in message.tool_calls))


def _success(subject: Subject, policy: Policy, tasks: Sequence[Task]) -> list[float]:
    """Return the unshaped success of each episode; failed ones are left out."""
    played = [subject.play(policy, task) for task in tasks]
    return [trajectory.score.accuracy for trajectory, fault in played if trajectory.score and not fault]


def _baselines(scripts: Sequence[tuple[Message, ...]]) -> Iterator[_Baseline]:
    """Yield the expert's most common answer, action and script, then answers that suit many a choice."""
    finals = [script[-1] for script in scripts if script]
    seen: set[str] = set()
    for name, message in (*_common(finals, scripts), *_stock(finals)):
        if (key := repr(message)) not in seen:
            seen.add(key)
            yield _Baseline(name=f"{name} ({_shown(message)})", policy=RepeatedAction(message))
    for episodes in (scripts, [_calls_of(script) for script in scripts]):
        counts = Counter(map(repr, (episode for episode in episodes if len(episode) > 1)))
        for text, _ in counts.most_common(1):
            episode = next(episode for episode in episodes if repr(episode) == text)
            shown = ", then ".join(map(_shown, episode))
            yield _Baseline(name=f"the expert's most common episode ({shown})", policy=Script(*episode))


def _calls_of(script: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(replace(message, content="") for message in script if message.tool_calls)


def _common(finals: Sequence[Message], scripts: Sequence[tuple[Message, ...]]) -> Iterator[tuple[str, Message]]:
    name = "the expert's most common answer"
    if finals:
        answer, _ = Counter(_answer(message) for message in finals).most_common(1)[0]
        example = next(message for message in finals if _answer(message) == answer)
        yield name, example
        yield name, _say(answer, example)
    actions = {repr(message): message for script in scripts for message in script}
    counts = Counter(repr(message) for script in scripts for message in script)
    for text, _ in counts.most_common(1):
        yield "the expert's most common action, in every turn", actions[text]


def _stock(finals: Sequence[Message]) -> Iterator[tuple[str, Message]]:
    unknown = [Message(role="assistant", content=text) for text in ("", "<answer></answer>")]
    for example in finals[:1] or unknown:
        for answer in _STOCK:
            yield "the same answer to everything", _say(answer, example)
    yield "a refusal of everything", Message(role="assistant", content=_REFUSAL)


def _answer(message: Message) -> str:
    """Return what a message answers: in tags or a box, or else its last line with its calls."""
    if found := _TAG.findall(message.content) or _BOX.findall(message.content):
        return str(found[-1])
    lines = message.content.strip().splitlines()
    return (lines[-1].strip() if lines else "") + "".join(repr(call) for call in message.tool_calls)


def _say(answer: str, example: Message) -> Message:
    """Return a message with ``answer`` in the form of ``example``."""
    if _TAG.search(example.content):
        answer = f"<answer>{answer}</answer>"
    elif _BOX.search(example.content):
        answer = f"\\boxed{{{answer}}}"
    return Message(role="assistant", content=answer)


def _shown(message: Message) -> str:
    calls = [
        f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})" for call in message.tool_calls
    ]
    text = " ".join([*message.content.split(), *calls])
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
