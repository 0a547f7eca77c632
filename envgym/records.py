"""The records that everything else passes around: messages, tasks, turns, trajectories.

All are plain dataclasses that serialise with ``to_json`` and ``from_json``; nothing here imports a model
library, so a trajectory can be read, re-scored and reported on any machine.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

import pydantic_core
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from envgym.redaction import redacted

__all__ = [
    "SCHEMA",
    "Message",
    "Observation",
    "Outcome",
    "OutcomeKind",
    "Role",
    "Score",
    "Split",
    "Task",
    "ToolCall",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "TurnTokens",
    "VersionSpan",
    "check_schema",
    "problem_key",
    "from_json",
    "to_json",
]

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "held_out"]
T = TypeVar("T")

SCHEMA = 1
"""Version of every written record's schema; bumped when a field is removed or changes its meaning."""

_CONFIG = ConfigDict(ser_json_inf_nan="strings")
"""Writes a number that JSON lacks as text, ``"NaN"``, which is read back as the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One request by the model to run a tool."""

    name: str
    arguments: dict[str, JsonValue] = field(default_factory=dict)
    id: str = ""
    """Links the call to the tool message that answers it."""
    error: str | None = None
    """Reason why the call could not be parsed; it is answered with this text and never run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message. An assistant message is an action."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    """On a tool message: the call that it answers."""
    cut: bool = False
    """On an assistant message: a limit ended it, so it is incomplete. Its tool calls are never run."""
    cut_by: Literal["tokens", "context"] = "tokens"
    """Limit that cut the message: that of one turn, or the room left in the context."""
    reasoning: str = ""
    """On an assistant message: thoughts that a server gave apart from the answer. They are never scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """Description of a tool for the model."""

    name: str
    description: str
    parameters: dict[str, JsonValue]
    """JSON schema of the arguments object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A policy's view: the messages that are new since its last action, and the tools on offer."""

    messages: tuple[Message, ...] = ()
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem. ``reference`` is hidden: no observation may hold it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    id: str
    split: Split
    messages: tuple[Message, ...]
    reference: JsonValue = None
    difficulty: float = 0.0
    problem: str = ""
    """What is asked, in a form that names, wording and the order of commutative parts do not change; see
    ``problem_key``. ``""``: the prompt itself."""
    metadata: dict[str, JsonValue] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.id, self.split))


class VersionSpan(NamedTuple):
    """Consecutive tokens of a completion that the same weights sampled."""

    version: int
    tokens: int


@dataclass(slots=True, kw_only=True)
class TurnTokens:
    """The tokens of one turn, exactly as the engine saw them.

    Worked example, two turns: the first has ``prompt_ids = [system, user]`` and ``completion_ids = [call]``; the
    second has ``prompt_ids = [end-of-turn, tool answer, assistant header]``. Their concatenation is what the
    model was conditioned on.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    prompt_ids: list[int]
    """Ids added since the previous turn; with ``fork``, the whole prompt. [P]"""
    completion_ids: list[int]
    """Sampled ids, the end-of-turn token included when it was sampled. [C]"""
    logprobs: list[float]
    """Log-probability of each sampled id at the sampling temperature. [C]"""
    policy_version: int
    """Version of the oldest weights that sampled one of the ids."""
    fork: bool = False
    """The chat template rewrote history: this prompt does not continue the previous turn."""
    spans: list[VersionSpan] = field(default_factory=list)
    """Which weights sampled ``completion_ids``, in order; empty unless they changed in mid-turn."""

    @property
    def versions(self) -> list[int]:
        """Version of the weights that sampled each of ``completion_ids``. [C]"""
        length = len(self.completion_ids)
        spans = self.spans or [VersionSpan(self.policy_version, length)]
        # A stored record may claim any number of tokens.
        return [span.version for span in spans for _ in range(min(span.tokens, length))][:length]


@dataclass(slots=True, kw_only=True)
class Turn:
    """One action, with the messages that led to it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    messages: tuple[Message, ...]
    """The new messages that the policy saw before it acted."""
    action: Message
    reward: float = 0.0
    """Per-turn reward from the environment; the trajectory's score is kept apart."""
    metrics: dict[str, float] = field(default_factory=dict)
    tokens: TurnTokens | None = None


class OutcomeKind(enum.StrEnum):
    """Ways in which an episode ends."""

    RUNNING = "running"
    COMPLETED = "completed"
    TRUNCATED = "truncated"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of an episode, with its reason. Only ``failed`` is missing data."""

    kind: OutcomeKind
    reason: str = ""
    """For ``truncated``: turns, tokens or context. For ``failed``: the error's type and message."""

    @property
    def cause(self) -> str:
        """The reason in one word, to count by: for ``failed`` the error's type alone."""
        return self.reason.partition(":")[0]

    @classmethod
    def completed(cls) -> Outcome:
        """Make the outcome of an episode that the environment ended."""
        return cls(kind=OutcomeKind.COMPLETED)

    @classmethod
    def truncated(cls, reason: Literal["turns", "tokens", "context"]) -> Outcome:
        """Make the outcome of an episode that a limit ended."""
        return cls(kind=OutcomeKind.TRUNCATED, reason=reason)

    @classmethod
    def failed(cls, error: BaseException) -> Outcome:
        """Make the outcome of an episode that an infrastructure failure ended."""
        return cls(kind=OutcomeKind.FAILED, reason=redacted(f"{type(error).__name__}: {error}")[:2000])


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A trajectory's reward and where it came from."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    value: float
    """The reward: the weighted sum of ``components``, or the floor after a closed gate or a truncation."""
    accuracy: float
    """Unshaped success in [0, 1]; reported by evaluation and used by dynamic sampling."""
    components: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    as_it_stands: Score | None = None
    """For a truncated episode: its score had it ended there of itself, with the same components. ``None`` where
    that is this score, and where the environment does not score what is not finished."""


@dataclass(slots=True, kw_only=True)
class Trajectory:
    """The record of one episode."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    env: str
    task: Task
    seed: int = 0
    tools: tuple[ToolSpec, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    closing: tuple[Message, ...] = ()
    """Messages of the environment after the last action."""
    outcome: Outcome = Outcome(kind=OutcomeKind.RUNNING)
    score: Score | None = None
    artifacts: dict[str, JsonValue] = field(default_factory=dict)
    """Values that the environment needs, besides the messages, to score this trajectory again."""
    seconds: Annotated[float, Field(exclude=True)] = field(default=0.0, compare=False)
    """Time that the episode took. It is not stored: records of equal runs are equal."""
    role: str = ""
    """Role that the policy played in a nested episode; ``""`` for an outermost episode."""
    nested: list[Trajectory] = field(default_factory=list)
    """The episodes that this one played for other roles, in the order in which they began."""

    @property
    def failed(self) -> bool:
        """True if this is missing data."""
        return self.outcome.kind is OutcomeKind.FAILED

    @property
    def ending(self) -> str:
        """Outcome and cause, for counting: ``completed``, ``truncated: tokens``, ``failed: SandboxError``."""
        kind, cause = self.outcome.kind, self.outcome.cause
        return f"{kind}: {cause}" if cause else str(kind)

    @property
    def reward(self) -> float:
        """Return of the episode: the score plus every per-turn reward; NaN where it is missing data."""
        if self.failed or self.score is None:
            return float("nan")
        return self.score.value + sum(turn.reward for turn in self.turns)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation in order."""
        spoken = [m for turn in self.turns for m in (*turn.messages, turn.action)]
        return (*spoken, *self.closing)

    @property
    def final_text(self) -> str:
        """Text of the last action, or ``""``."""
        return self.turns[-1].action.content if self.turns else ""

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the policy sampled, over all turns; nested episodes count their own."""
        return sum(len(turn.tokens.completion_ids) for turn in self.turns if turn.tokens)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_json(record: Any) -> str:
    """Serialise any record of this module to one line of JSON, with its schema version first."""
    kind: Any = type(record)
    fields = _adapter(kind).dump_json(record, exclude_defaults=True).decode()
    return f'{{"schema":{SCHEMA}{"" if fields == "{}" else ","}{fields[1:]}'


def from_json(kind: type[T], text: str | bytes) -> T:
    """Read a record of type ``kind``. A record without a version predates versions and is read the same way.

    Raises:
        ValueError: the text is not such a record, or a newer envgym wrote it. The message names the place and
            quotes nothing.
    """
    values: Any = pydantic_core.from_json(text)
    if isinstance(values, dict):
        check_schema(values)
    wanted: Any = kind
    try:
        record: T = _adapter(wanted).validate_python(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the record"
        raise ValueError(f"{place:.200}: {fault['msg']:.200}") from None
    return record


def check_schema(values: Mapping[str, Any]) -> None:
    """Refuse values that a newer version of envgym wrote.

    Raises:
        ValueError: ``values["schema"]`` is not a version that this envgym can read.
    """
    version = values.get("schema", SCHEMA)
    if not isinstance(version, int) or version > SCHEMA:
        raise ValueError(f"schema {version!r:.20} is newer than {SCHEMA}, which this envgym reads: upgrade envgym")


def problem_key(task: Task) -> str:
    """Return the key of the problem that a task asks; tasks of one key must be in one split.

    Without ``Task.problem`` it comes from the prompt, system messages left out, where case, space and punctuation
    do not count.
    """
    asked = task.problem or json.dumps([(m.role, _words(m.content)) for m in task.messages if m.role != "system"])
    return hashlib.sha256(asked.encode()).hexdigest()


def _words(text: str) -> list[str]:
    # Signs between digits count: 3-4 is not 34, and 0.5 is not 05.
    return re.findall(r"\w+|(?<=\w)[^\w\s](?=\w)|[+*/<>=^%-]", text.casefold())
