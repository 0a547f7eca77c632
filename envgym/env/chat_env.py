"""``ChatEnv``: a Gymnasium environment over chat messages.

Three levels of authoring, each a superset of the one before:

1. single turn: implement ``tasks`` and ``score``;
2. tools: mark methods with ``@tool``; calls are answered, a message without a call ends the episode;
3. full control: override ``respond``.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import gymnasium
import pydantic

from envgym.env.run_sync import run_sync
from envgym.env.services import Services
from envgym.env.spaces import ActionSpace, ObservationSpace
from envgym.env.tools import Tool, collect_tools, run_calls
from envgym.errors import DataError, EnvironmentFailure, VerifierError
from envgym.plugins.base import Plugin
from envgym.records import Message, Observation, Outcome, Score, Split, Task, Trajectory, Turn, TurnTokens
from envgym.tasks.procedural import check_split

__all__ = ["ChatEnv", "Reply"]

StepResult = tuple[Observation, float, bool, bool, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How an environment answers an action."""

    messages: tuple[Message, ...] = ()
    done: bool = False
    reward: float = 0.0
    """Per-turn reward; the trajectory's score comes on top at the end."""
    metrics: dict[str, float] = field(default_factory=dict)


class ChatEnv(Plugin, gymnasium.Env[Observation, Message]):
    """Draws tasks, offers tools, answers actions and scores trajectories.

    ``areset`` and ``astep`` are the implementation; ``reset`` and ``step`` drive them.

    What a subclass sets:
        Config: its settings; the instance is ``self.config``.
        reward_range: the least and the greatest score.

    Args:
        split: which tasks ``reset`` draws: ``"train"`` or ``"held_out"``.
        services: the sandbox and whatever else is shared; made from defaults when absent.
        settings: fields of ``Config``.

    Raises:
        UserError: an unknown split or setting, or missing data.
    """

    class Config(Plugin.Config):
        """Settings that every environment has; a subclass adds its own."""

        max_turns: int = pydantic.Field(default=6, ge=1, description="actions before the episode is truncated")
        size: int = pydantic.Field(default=10_000, ge=1, description="procedural tasks per split")
        task_seed: int = pydantic.Field(default=0, description="names the sequence of procedural tasks")

    config: Config
    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs_sandbox: ClassVar[bool] = False
    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, *, split: str = "train", services: Services | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.split: Split = check_split(split)
        self.services = services or Services()
        self._owns_services = services is None
        self.tools: dict[str, Tool] = self.make_tools()
        self._specs = tuple(t.spec for t in self.tools.values())
        self.observation_space = ObservationSpace()
        self.action_space = ActionSpace(self._specs)
        self._tasks: dict[Split, Sequence[Task]] = {}
        self.trajectory: Trajectory | None = None
        self._pending: tuple[Message, ...] = ()
        self._started = 0.0
        self._unfinished = False
        self.running = False
        """Whether an episode is begun and not over: ``step`` may be called."""

    # -- what an author writes ------------------------------------------------------------------------------

    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split. Called once per split; may be lazy."""
        raise NotImplementedError(f"{type(self).__name__} must define tasks(split)")

    def score(self, trajectory: Trajectory) -> Score | Awaitable[Score]:
        """Score a finished trajectory, from its messages, task and artifacts alone."""
        raise NotImplementedError(f"{type(self).__name__} must define score(trajectory)")

    def gold(self, task: Task) -> Sequence[Message]:
        """The actions of a scripted expert, which score the maximum: proof that the task can be solved."""
        raise NotImplementedError(f"{type(self).__name__} must define gold(task)")

    async def start(self, task: Task) -> None:
        """Prepare an episode of ``task``. The base class has nothing to prepare."""

    async def finish(self) -> None:
        """Free what ``start`` took; called once per episode, however it ended, also when ``start`` failed."""

    async def respond(self, action: Message) -> Reply:
        """Answer an action. By default: run its tool calls; a message without one is the final answer."""
        if not action.tool_calls:
            return Reply(done=True)
        messages, metrics = await run_calls(self.tools, action.tool_calls)
        return Reply(messages=messages, metrics=metrics)

    def make_tools(self) -> dict[str, Tool]:
        """The tools on offer under ``self.config``: by default, every method that ``@tool`` marked."""
        return collect_tools(self)

    # -- the machinery --------------------------------------------------------------------------------------

    def task_list(self, split: Split) -> Sequence[Task]:
        """``tasks(split)``, kept.

        Raises:
            DataError: there are none, or the data is missing or malformed.
        """
        if split not in self._tasks:
            tasks = self.tasks(split)
            if not len(tasks):
                raise DataError(f"{type(self).__name__} has no {split} task")
            self._tasks[split] = tasks
        return self._tasks[split]

    def share_tasks(self, other: ChatEnv) -> None:
        """Use the task lists that another instance with the same settings has made."""
        self._tasks = other._tasks

    async def areset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: seeds the draw of the task and whatever the environment draws later.
            options: ``{"task": Task}`` plays that task instead of drawing one.

        Returns:
            the first observation, and an info dict with the task's id.
        """
        super().reset(seed=seed)
        await self.end_episode()
        task = (options or {}).get("task") or self._draw()
        self.trajectory = Trajectory(
            env=type(self).__name__, task=task, seed=-1 if seed is None else seed, tools=self._specs
        )
        self._started = time.monotonic()
        self._unfinished = True
        await self.start(task)
        self.running = True
        self._pending = task.messages
        return self._observe(), {"task_id": task.id}

    async def astep(self, action: Message, tokens: TurnTokens | None = None) -> StepResult:
        """Take one action.

        Args:
            action: an assistant message.
            tokens: what the policy's model sampled for it; kept in the record and read by nothing here.

        Returns:
            observation, reward, terminated, truncated, info. At the end, the reward includes the score and
            ``info["score"]`` holds it; ``terminated`` and ``truncated`` are never both set.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was begun.
            gymnasium.error.InvalidAction: the action is not an assistant message.
            EpisodeError: infrastructure failed; the episode is missing data.
        """
        trajectory = self._current()
        if not isinstance(action, Message) or action.role != "assistant":
            raise gymnasium.error.InvalidAction(f"an action is an assistant Message, got {action!r:.200}")
        turn = Turn(messages=self._pending, action=action, tokens=tokens)
        trajectory.turns.append(turn)
        self._pending = ()
        if action.cut:
            return await self._conclude(Outcome.truncated("tokens"), turn)
        reply = await self.respond(action)
        turn.reward, turn.metrics = reply.reward, reply.metrics
        self._pending = reply.messages
        if reply.done:
            return await self._conclude(Outcome.completed(), turn)
        if len(trajectory.turns) >= self.config.max_turns:
            return await self._conclude(Outcome.truncated("turns"), turn)
        return self._observe(), turn.reward, False, False, dict(turn.metrics)

    async def truncate(self, reason: Literal["context", "time"]) -> StepResult:
        """End the episode because the policy has no room or no time for another action.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was begun.
        """
        self._current()
        return await self._conclude(Outcome.truncated(reason), None)

    async def end_episode(self) -> None:
        """Free what the running episode took, however it ended. Safe to call twice."""
        self.running = False
        if self._unfinished:
            self._unfinished = False
            await self.finish()

    async def aclose(self) -> None:
        """End any episode and free what the environment owns. Safe to call twice."""
        await self.end_episode()
        if self._owns_services:
            await self.services.close()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Synchronous ``areset``."""
        return run_sync(self.areset(seed=seed, options=options))

    def step(self, action: Message) -> StepResult:
        """Synchronous ``astep``."""
        return run_sync(self.astep(action))

    def close(self) -> None:
        """Synchronous ``aclose``."""
        run_sync(self.aclose())

    def _draw(self) -> Task:
        tasks = self.task_list(self.split)
        return tasks[int(self.np_random.integers(len(tasks)))]

    def _observe(self) -> Observation:
        return Observation(messages=self._pending, tools=self._specs)

    def _current(self) -> Trajectory:
        if self.trajectory is None or not self.running:
            raise gymnasium.error.ResetNeeded("call reset() before step(), and again after an episode ends")
        return self.trajectory

    async def _conclude(self, outcome: Outcome, turn: Turn | None) -> StepResult:
        trajectory = self._current()
        trajectory.outcome = outcome
        trajectory.closing = self._pending
        try:
            score = await self.rescore(trajectory)
        finally:
            await self.end_episode()
        trajectory.score = score
        trajectory.seconds = time.monotonic() - self._started
        completed = outcome.reason == ""
        reward = score.value + (turn.reward if turn else 0.0)
        info = {"score": score, "outcome": outcome, **(turn.metrics if turn else {})}
        return self._observe(), float(reward), completed, not completed, info

    async def rescore(self, trajectory: Trajectory) -> Score:
        """Score a finished trajectory, played here or stored; awaits where ``score`` is asynchronous.

        Raises:
            EpisodeError: ``score`` gave no score, or one that is not a number.
        """
        given: Any = self.score(trajectory)
        score = await given if inspect.isawaitable(given) else given
        if not isinstance(score, Score):
            raise EnvironmentFailure(f"score() must return a Score, got {type(score).__name__}")
        if not math.isfinite(score.value + score.accuracy + sum(turn.reward for turn in trajectory.turns)):
            raise VerifierError(f"a reward that is not a number: {score.value}, accuracy {score.accuracy}")
        return score
