"""``ChatEnv``: a Gymnasium environment over chat messages.

``envgym.env.author_hooks`` has the methods that an author writes. The machinery is here: an author may use any
private name, because its own are mangled, and its methods refuse to be overridden.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, Self

import gymnasium
import pydantic

from envgym.env.author_hooks import Reply
from envgym.env.copying import Copied, checked_for_pickling, copied
from envgym.env.culprit import contained
from envgym.env.declarations import check_declaration
from envgym.env.episode_services import EpisodeServices
from envgym.env.episode_state import EpisodeState, ResetResult, StepResult, checked_options
from envgym.env.late_seed import LateSeed
from envgym.env.render import RENDER_MODES, check_render_mode, conversation_text
from envgym.env.run_sync import run_sync
from envgym.env.scoring import ScoredEnv, checked_reply
from envgym.env.services import Services
from envgym.env.spaces import ActionSpace, ObservationSpace
from envgym.env.tools import Tool
from envgym.errors import DataError, EnvironmentFailure, EpisodeError, PluginError, UserError
from envgym.plugins.base import Plugin
from envgym.records import Message, Observation, Outcome, Split, Task, Trajectory, Turn, TurnTokens
from envgym.seeding import derive_seed
from envgym.tasks.procedural import check_split

__all__ = ["ChatEnv", "Reply"]

_MADE_ANEW = {"config", "split", "render_mode", "tools"} | {f"_ChatEnv__{n}" for n in ("shared", "specs", "tasks")}
"""Attributes that a copy makes for itself."""


class ChatEnv(ScoredEnv, LateSeed, Plugin, gymnasium.Env[Observation, Message]):
    """Draws tasks, offers tools, answers actions and scores trajectories.

    ``areset`` and ``astep`` are the implementation; ``reset`` and ``step`` drive them.

    A subclass may set:
        Config: its settings; the instance is ``self.config``.
        reward_range: the least and the greatest score, and the least and the greatest reward of one turn; a turn
            may always be worth 0. An episode with any other is missing data.
        chance: mean success of the best answer that is the same for every task, where the tasks are a choice
            between few; ``envgym check`` allows that much.
        roles: names of the roles that its nested episodes are played for, through ``self.services.play``.

    and finds in ``self``: ``config``, ``split``, ``tools`` by name, ``trajectory`` and ``services``.

    Args:
        split: the split that ``reset`` draws from, ``"train"`` or ``"held_out"``.
        services: the shared services of the run, made from defaults when absent. An environment that makes
            another passes its own on.
        render_mode: ``"ansi"`` has ``render`` return the conversation as text.
        settings: fields of ``Config``.

    Raises:
        UserError: an unknown split, render mode or setting, or missing data.
    """

    class Config(Plugin.Config):
        """Settings that every environment has; a subclass adds its own."""

        max_turns: int = pydantic.Field(default=6, ge=1, description="actions before the episode is truncated")
        size: int = pydantic.Field(default=10_000, ge=1, description="procedural tasks per split")
        task_seed: int = pydantic.Field(default=0, description="names the sequence of procedural tasks")

    config: Config
    chance: ClassVar[float] = 0.0
    roles: ClassVar[tuple[str, ...]] = ()
    needs_sandbox: ClassVar[bool] = False
    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012 - Gymnasium's own declaration

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        check_declaration(cls, ChatEnv)

    def __init__(
        self,
        *,
        split: str = "train",
        services: Services | EpisodeServices | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.render_mode = check_render_mode(render_mode)
        self.split: Split = check_split(split)
        self.__shared = services.shared if isinstance(services, EpisodeServices) else services or Services()
        self.__owns_services = services is None
        self.services = EpisodeServices(self.__shared)
        self.tools: dict[str, Tool] = self.make_tools()
        self.__join_tools()
        self.__specs = tuple(t.spec for t in self.tools.values())
        self.observation_space = ObservationSpace()
        self.action_space = ActionSpace(self.__specs)
        self.__tasks: dict[Split, Sequence[Task]] = {}
        self.__episode: EpisodeState | None = None
        self.__unfinished = False
        self.__running = False
        self.__reserved = False

    def __join_tools(self) -> None:
        kind = type(self)
        cached = any(tool.options.cache for tool in self.tools.values())
        settings = self.config.model_dump_json() if cached else ""
        for tool in self.tools.values():
            tool.join(self.__shared.tools, f"{kind.__module__}.{kind.__qualname__}", settings)

    @property
    def trajectory(self) -> Trajectory:
        """The record of the episode under way, or of the last one; its ``artifacts`` are the author's to fill.

        Raises:
            gymnasium.error.ResetNeeded: no episode was begun.
        """
        if self.__episode is None:
            raise gymnasium.error.ResetNeeded("no episode was begun: call reset() first")
        return self.__episode.trajectory

    @property
    def running(self) -> bool:
        """True while an episode is under way: ``step`` may be called."""
        return self.__running

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep the instance for one rollout.

        Raises:
            UserError: another rollout plays it.
        """
        if self.__reserved:
            name = type(self).__name__
            raise UserError(f"this {name} already plays an episode: make an instance for each, or give its id")
        self.__reserved = True
        try:
            yield
        finally:
            self.__reserved = False

    def task_list(self, split: Split) -> Sequence[Task]:
        """Return ``tasks(split)``, cached.

        Raises:
            DataError: there are none, or the data is missing or malformed.
        """
        if split not in self.__tasks:
            with contained(PluginError):
                tasks = self.tasks(split)
            if not len(tasks):
                raise DataError(f"{type(self).__name__} has no {split} task")
            self.__tasks[split] = tasks
        return self.__tasks[split]

    def share_tasks(self, other: Self) -> None:
        """Reuse the task lists of another instance with the same settings, and the state that ``share`` reuses."""
        self.__tasks = other.__tasks
        self.share(other)

    async def areset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetResult:
        """Begin an episode.

        Args:
            seed: seeds the draw of the task and ``self.services.rng``.
            options: ``{"task": Task}`` plays that task instead of drawing one; ``{"host": EpisodeHost}`` is for
                rollouts, and brings its own record, task included.

        Returns:
            the first observation, and an info dict with the task's id.

        Raises:
            UserError: an unknown option, or a ``task`` that is none.
            EpisodeError: infrastructure failed; the episode is missing data.
        """
        host, task = checked_options(options)
        if isinstance(seed, int) and seed >= 0:
            self.seed_late(seed)
        else:
            super().reset(seed=seed)
        await self.end_episode()
        trajectory = host.record if host else self.__new_record(task, seed)
        trajectory.tools = self.__specs
        # Not the policy's seed: a policy must not be able to predict the environment's draws.
        draws = derive_seed("environment", int(self.np_random.integers(2**63)) if seed is None else seed)
        self.services = EpisodeServices(self.__shared, draws, host, self.roles)
        episode = self.__episode = EpisodeState(trajectory)
        self.__unfinished = True
        with contained(EnvironmentFailure):
            await self.start(trajectory.task)
        if not self.__unfinished or self.__episode is not episode:
            raise EnvironmentFailure("start() came to its end after the episode was over")
        self.__running = True
        return episode.observe(), {"task_id": trajectory.task.id}

    async def astep(self, action: Message, tokens: TurnTokens | None = None) -> StepResult:
        """Take one action.

        Args:
            action: an assistant message.
            tokens: the ids and log-probs sampled for it; kept in the record and not read here.

        Returns:
            observation, reward, terminated, truncated, info. At the end, the reward includes the score and
            ``info["score"]`` holds it; ``terminated`` and ``truncated`` are never both set.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was begun.
            gymnasium.error.InvalidAction: the action is not an assistant message.
            EpisodeError: infrastructure failed; the episode is missing data.
        """
        episode = self.__under_way()
        if not isinstance(action, Message) or action.role != "assistant":
            raise gymnasium.error.InvalidAction(f"an action is an assistant Message, got {action!r:.200}")
        turn = episode.begin_turn(action, tokens)
        if action.cut:
            return await self.__conclude(Outcome.truncated(action.cut_by), turn)
        with contained(EnvironmentFailure):
            reply = await self.respond(action)
        self.__check_under_way(episode, "respond()")
        try:
            turn.reward = checked_reply(reply, self.reward_range).reward
        except EpisodeError:
            await self.end_episode()
            raise
        turn.metrics = reply.metrics
        episode.pending = reply.messages
        if reply.done:
            return await self.__conclude(Outcome.completed(), turn)
        if len(episode.trajectory.turns) >= self.config.max_turns:
            return await self.__conclude(Outcome.truncated("turns"), turn)
        return episode.observe(), turn.reward, False, False, dict(turn.metrics)

    async def truncate(self, reason: Literal["context"]) -> StepResult:
        """End the episode because the policy has no room for another action.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was begun.
        """
        return await self.__conclude(Outcome.truncated(reason), None)

    async def aclose(self) -> None:
        """End any episode and free what the environment owns; an override calls this one. Safe to call twice."""
        await self.end_episode()
        if self.__owns_services:
            await self.__shared.close()

    async def end_episode(self) -> None:
        """Free the resources of the running episode, however it ended. Safe to call twice."""
        self.__running = False
        if self.__unfinished:
            self.__unfinished = False
            with contained(EnvironmentFailure):
                await self.finish()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> ResetResult:
        """Begin an episode: ``areset`` for synchronous callers."""
        return run_sync(self.areset(seed=seed, options=options))

    def step(self, action: Message) -> StepResult:
        """Take one action: ``astep`` for synchronous callers."""
        return run_sync(self.astep(action))

    def close(self) -> None:
        """Free everything: ``aclose`` for synchronous callers."""
        run_sync(self.aclose())

    def render(self) -> str | None:
        """Return the conversation so far as text, or ``None`` without a render mode.

        Control characters are shown as escapes, so that no message can control a terminal.

        Raises:
            gymnasium.error.ResetNeeded: no episode was begun.
        """
        if self.render_mode is None:
            return None
        if self.__episode is None:
            raise gymnasium.error.ResetNeeded("no episode was begun: call reset() before render()")
        return conversation_text(self.__episode.conversation())

    def __copy__(self) -> Self:
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        make, arguments, state = self.__parts()
        made: Self = make(*arguments)
        memo[id(self)] = made
        made.__setstate__(copied(state, memo, type(self).__name__))
        made.share_tasks(self)
        return made

    def __reduce_ex__(self, protocol: Any) -> Copied:
        make, arguments, state = self.__parts()
        checked_for_pickling(state, self)
        return make, arguments, state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __parts(self) -> Copied:
        """Return how to make another instance, and the state that it takes over.

        Raises:
            TypeError: a rollout plays the environment: the copy would not be part of it.
        """
        if self.__reserved:
            raise TypeError(f"this {type(self).__name__} cannot be copied or pickled: a rollout plays it")
        state = {name: value for name, value in vars(self).items() if name not in _MADE_ANEW}
        arguments = type(self), self.split, None if self.__owns_services else self.__shared, self.render_mode
        return _made_again, (*arguments, self.config.model_dump()), state

    def __new_record(self, task: Task | None, seed: int | None) -> Trajectory:
        if task is None:
            tasks = self.task_list(self.split)
            task = tasks[int(self.np_random.integers(len(tasks)))]
        return Trajectory(env=type(self).__name__, task=task, seed=-1 if seed is None else seed)

    def __under_way(self) -> EpisodeState:
        if self.__episode is None or not self.__running:
            raise gymnasium.error.ResetNeeded("call reset() before step(), and again after an episode ends")
        return self.__episode

    def __check_under_way(self, episode: EpisodeState, what: str) -> None:
        """Refuse what an abandoned hook brings after its episode is over: it must not change the record."""
        if self.__episode is not episode or not self.__running:
            raise EnvironmentFailure(f"{what} came to its end after the episode was over")

    async def __conclude(self, outcome: Outcome, turn: Turn | None) -> StepResult:
        episode = self.__under_way()
        episode.end(outcome)
        try:
            with contained(EnvironmentFailure):
                await self.conclude()
            score = await self.rescore(episode.trajectory)
            self.__check_under_way(episode, "scoring")
        finally:
            await self.end_episode()
        return episode.result(score, turn)


def _made_again(
    kind: type[ChatEnv], split: str, services: Services | None, mode: str | None, settings: dict[str, Any]
) -> ChatEnv:
    return kind(split=split, services=services, render_mode=mode, **settings)
