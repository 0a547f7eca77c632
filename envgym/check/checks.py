"""The checks of the quality gate. Each finds one kind of fault and says how to mend it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gymnasium
from gymnasium.utils.env_checker import check_env

from envgym.check.baselines import constant_answers
from envgym.check.probes import BAD_CALLS, GARBAGE, Subject, say, wrong_arguments
from envgym.env.chat_env import ChatEnv
from envgym.env.run_sync import run_sync
from envgym.policies.interface import Policy
from envgym.policies.scripted import EmptyPolicy, Expert, RandomPolicy
from envgym.records import Message, Task, ToolCall, Trajectory, from_json, problem_key, to_json

__all__ = ["CHECKS", "Check", "Subject"]

_CANCELLED_AFTER = (0.0, 0.003, 0.03)
"""Delays in seconds: before an episode begins, while it begins, and in the middle of most."""
_COMPARED = 20_000
"""Maximum number of tasks of each split that are compared for overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One demand on an environment."""

    name: str
    mend: str
    """Advice on how to mend a fault."""
    find: Callable[[Subject], Iterator[str]]

    def faults(self, subject: Subject) -> list[str]:
        """Return the faults found; an exception of the environment's is one, too."""
        try:
            return list(self.find(subject))
        except Exception as error:  # noqa: BLE001 - the code under test may raise anything
            return [f"{type(error).__name__}: {error}"]


def _gold(subject: Subject) -> Iterator[str]:
    highest = subject.env.reward_range[1]
    for task in subject.tasks():
        played, fault = subject.play(Expert(), task)
        if fault:
            yield fault
        elif played.score is not None and (played.score.value, played.score.accuracy) != (highest, 1):
            yield f"task {task.id}: gold scored {played.score.value:g}, accuracy {played.score.accuracy:g}"


def _floor(subject: Subject) -> Iterator[str]:
    for task in subject.tasks():
        echo = "\n".join(m.content for m in task.messages)
        cheap = {
            "silence": EmptyPolicy(),
            "the prompt echoed": say(echo),
            "the question echoed": say(task.messages[-1].content),
            "the prompt as an answer": say(f"<answer>{echo}</answer>"),
        }
        yield from _above_the_floor(subject, task, cheap)
    first = next(subject.tasks())
    yield from _above_the_floor(subject, first, {repr(text[:30]): say(text) for text in GARBAGE})


def _above_the_floor(subject: Subject, task: Task, policies: dict[str, Policy]) -> Iterator[str]:
    for name, policy in policies.items():
        played, fault = subject.play(policy, task)
        if fault:
            yield f"{name}: {fault}"
        elif played.reward != subject.env.reward_range[0]:
            yield f"task {task.id}: {name} scored {played.reward:g}"


def _bad_calls(subject: Subject) -> Iterator[str]:
    task = next(subject.tasks())
    wrong = [
        ToolCall(name=name, arguments=given)
        for name, found in subject.env.tools.items()
        for given in wrong_arguments(found.spec)
    ]
    for call in (*BAD_CALLS, *wrong):
        played, fault = subject.play(say("", call), task)
        if fault:
            yield f"call {call.name!r}: {fault}"
        elif len(played.turns) < 2 or not played.turns[1].messages[0].content.startswith("error: "):
            yield f"call {call.name!r} with {call.arguments} was not answered with an error"
    for name, found in subject.env.tools.items():
        if found.spec.parameters.get("required"):
            continue
        if fault := subject.play(say("", ToolCall(name=name)), task)[1]:
            yield f"call {name!r}, which needs no arguments: {fault}"


def _random(subject: Subject) -> Iterator[str]:
    for seed, task in enumerate(subject.tasks()):
        if fault := subject.play(RandomPolicy(), task, seed)[1]:
            yield fault


def _seeds(subject: Subject) -> Iterator[str]:
    with contextlib.closing(subject.make()) as first, contextlib.closing(subject.make()) as second:
        draws = [[env.reset(seed=seed)[1]["task_id"] for seed in (1, 2, 3)] for env in (first, second)]
    if draws[0] != draws[1]:
        yield f"seeds 1, 2, 3 drew tasks {draws[0]} in one instance and {draws[1]} in another"


def _observation(subject: Subject) -> Iterator[str]:
    for task in subject.tasks():
        observation, info = subject.env.reset(seed=0, options={"task": task})
        if observation.messages != task.messages or set(info) != {"task_id"}:
            yield f"task {task.id}: the first observation is not the prompt alone, or info tells {sorted(info)}"
        if not subject.env.observation_space.contains(observation):
            yield f"task {task.id}: the first observation is not in the observation space"
    run_sync(subject.env.end_episode())


def _replay(subject: Subject) -> Iterator[str]:
    task = next(subject.tasks())
    for policy in (Expert(), RandomPolicy()):
        name = type(policy).__name__
        (first, fault), (again, _) = (subject.play(policy, task, seed=1) for _ in range(2))
        if fault:
            yield fault
            continue
        if (again.messages, again.score) != (first.messages, first.score):
            yield f"task {task.id}: two episodes of {name} with the same seed differ"
        rescored = run_sync(subject.env.rescore(from_json(Trajectory, to_json(first))))
        if rescored != first.score:
            yield f"task {task.id}: the stored trajectory of {name} is scored {rescored}, not {first.score}"


def _group(subject: Subject) -> Iterator[str]:
    env = subject.env
    if type(env).score_group is ChatEnv.score_group:
        return
    task = next(subject.tasks())
    played = [subject.play(policy, task)[0] for policy in (Expert(), EmptyPolicy(), RandomPolicy())]
    finished = [trajectory for trajectory in played if not trajectory.failed]
    scores = run_sync(env.rescore_group(finished))
    low, high = env.reward_range
    for score in scores:
        if not (low <= score.value <= high and 0 <= score.accuracy <= 1):
            yield f"task {task.id}: reward {score.value}, accuracy {score.accuracy}; declared are {low} to {high}"
    if run_sync(env.rescore_group(finished[::-1]))[::-1] != scores:
        yield f"task {task.id}: the scores of a group depend on the order of its members"


def _splits(subject: Subject) -> Iterator[str]:
    train, held_out = (subject.env.task_list(split)[:_COMPARED] for split in ("train", "held_out"))
    marked = {task.split for task in train}, {task.split for task in held_out}
    if marked != ({"train"}, {"held_out"}):
        yield f"tasks of train and held_out say that they belong to {marked[0]} and {marked[1]}"
    for what, key in (("ids", lambda t: t.id), ("problems", problem_key)):
        if shared := {key(t) for t in train} & {key(t) for t in held_out}:
            yield f"{len(shared)} {what} are in both splits, e.g. {next(iter(shared))}"


def _travel(subject: Subject) -> Iterator[str]:
    task = next(subject.tasks())
    if from_json(Task, to_json(task)) != task:
        yield f"task {task.id} changes when it is written and read"
    kind, settings = type(subject.env), subject.env.config.model_dump(mode="json")
    with contextlib.closing(kind(services=subject.env.services, **settings)) as other:
        if other.config != subject.env.config:
            yield "settings change when they are written and read"
        if other.task_list(task.split)[0] != task:
            yield f"another instance with the same settings has another first task than {task.id}"


def _closing(subject: Subject) -> Iterator[str]:
    env = subject.make()
    env.reset(seed=0)
    env.reset(seed=1)
    env.close()
    env.close()
    try:
        env.step(Message(role="assistant", content=""))
        yield "a step after close was taken"
    except gymnasium.error.ResetNeeded:
        return


def _cancelling(subject: Subject) -> Iterator[str]:
    task = next(subject.tasks())
    for after in _CANCELLED_AFTER:
        if fault := subject.cancel(task, after):
            yield fault
        elif fault := subject.play(Expert(), task)[1]:
            yield f"after an episode that was cancelled: {fault}"


def _gymnasium(subject: Subject) -> Iterator[str]:
    with contextlib.closing(subject.make()) as env, contextlib.redirect_stdout(io.StringIO()):
        check_env(env, skip_render_check=True)
    yield from ()


CHECKS = (
    Check(
        name="gold scores the maximum",
        find=_gold,
        mend="gold(task) must solve every task: mend the expert, the tests or the verifier, until all agree",
    ),
    Check(
        name="what deserves nothing scores the floor",
        find=_floor,
        mend="a policy finds this within a hundred steps: gate the reward on a real answer",
    ),
    Check(
        name="no answer suits every task",
        find=constant_answers,
        mend="balance the answers, or ask for more than a choice between few; where a choice is the task, declare "
        "the share that a constant answer has by nature: chance = 0.5 in the environment's class",
    ),
    Check(
        name="calls that cannot be run are answered",
        find=_bad_calls,
        mend="let run_calls answer tool calls, and raise ToolInputError for input that is wrong",
    ),
    Check(
        name="random actions stay within the rules",
        find=_random,
        mend="let no action raise, and declare reward_range as the scores and the rewards of turns are",
    ),
    Check(
        name="the same seed draws the same task",
        find=_seeds,
        mend="draw from the generator that tasks are made with, never from a global one",
    ),
    Check(
        name="the first observation is the prompt alone",
        find=_observation,
        mend="keep answers in Task.reference, and out of messages and info",
    ),
    Check(
        name="replay and re-scoring give the same score",
        find=_replay,
        mend="score from the trajectory alone; keep further data for scoring in Trajectory.artifacts",
    ),
    Check(
        name="a group's scores follow its members",
        find=_group,
        mend="score_group returns one score within reward_range for each trajectory, whatever their order",
    ),
    Check(
        name="train and held-out share nothing",
        find=_splits,
        mend="use ProceduralTasks, or split rows by problem; set Task.split, and Task.problem where the same can "
        "be asked in other words",
    ),
    Check(
        name="tasks and settings travel",
        find=_travel,
        mend="keep tasks to JSON values, and make them from the settings alone",
    ),
    Check(
        name="episodes can be abandoned, and closing twice is safe",
        find=_closing,
        mend="free in finish() what start() took",
    ),
    Check(
        name="a cancelled episode ends, and another can begin",
        find=_cancelling,
        mend="let CancelledError pass, and free in finish() what start() took, however far it came",
    ),
    Check(
        name="Gymnasium's own checker passes",
        find=_gymnasium,
        mend="do as it says; spaces and step results are ChatEnv's unless overridden",
    ),
)
