"""Gymnasium spaces of chat messages."""

from __future__ import annotations

from typing import Any

import gymnasium

from envgym.env.shared_memory import register_space
from envgym.records import Message, Observation, ToolCall, ToolSpec

__all__ = ["ActionSpace", "ObservationSpace"]

_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789+-*/<>{}\"':,.?\n"


class ActionSpace(gymnasium.Space[Message]):
    """Every assistant message of at most ``max_chars`` characters.

    ``sample`` draws random text and, half of the time, a call of one of ``tools`` with random arguments: enough
    for a random policy to reach the tools.
    """

    def __init__(self, tools: tuple[ToolSpec, ...] = (), max_chars: int = 1_000_000, seed: int | None = None):
        super().__init__(shape=None, dtype=None, seed=seed)
        self.tools = tools
        self.max_chars = max_chars

    @property
    def is_np_flattenable(self) -> bool:
        """False: messages have no fixed length."""
        return False

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is an assistant message within the length limit."""
        return isinstance(x, Message) and x.role == "assistant" and len(x.content) <= self.max_chars

    def sample(self, mask: Any = None, probability: Any = None) -> Message:
        """Draw a random message; masks do not apply to text.

        Raises:
            ValueError: a mask or probability was given.
        """
        if mask is not None or probability is not None:
            raise ValueError("a space of messages takes neither a mask nor probabilities")
        calls: tuple[ToolCall, ...] = ()
        if self.tools and self.np_random.random() < 0.5:
            spec = self.tools[int(self.np_random.integers(len(self.tools)))]
            calls = (ToolCall(name=spec.name, arguments=self._arguments(spec)),)
        return Message(role="assistant", content=self._text(), tool_calls=calls)

    def _text(self) -> str:
        size = int(self.np_random.integers(1, 24))
        return "".join(_ALPHABET[int(i)] for i in self.np_random.integers(len(_ALPHABET), size=size))

    def _arguments(self, spec: ToolSpec) -> dict[str, Any]:
        properties = spec.parameters.get("properties")
        names = properties if isinstance(properties, dict) else {}
        return {name: self._value(schema) for name, schema in names.items()}

    def _value(self, schema: Any) -> Any:
        schema = schema if isinstance(schema, dict) else {}
        if allowed := schema.get("enum"):
            return allowed[int(self.np_random.integers(len(allowed)))]
        match schema.get("type"):
            case "array":
                return [self._value(schema.get("items"))]
            case "integer":
                return int(self.np_random.integers(0, 100))
            case "number":
                return float(self.np_random.random())
            case "boolean":
                return bool(self.np_random.integers(2))
            case _:
                return self._text()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionSpace) and (self.tools, self.max_chars) == (
            other.tools,
            other.max_chars,
        )

    __hash__ = None  # type: ignore[assignment]


class ObservationSpace(gymnasium.Space[Observation]):
    """Every tuple of non-assistant messages, with any tools on offer."""

    def __init__(self, seed: int | None = None):
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: observations have no fixed length."""
        return False

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is an observation; the policy's own messages are never part of one."""
        return isinstance(x, Observation) and all(m.role != "assistant" for m in x.messages)

    def sample(self, mask: Any = None, probability: Any = None) -> Observation:
        """Draw an observation of one short user message.

        Raises:
            ValueError: a mask or probability was given.
        """
        if mask is not None or probability is not None:
            raise ValueError("a space of messages takes neither a mask nor probabilities")
        size = int(self.np_random.integers(0, 24))
        text = "".join(_ALPHABET[int(i)] for i in self.np_random.integers(len(_ALPHABET), size=size))
        return Observation(messages=(Message(role="user", content=text),))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObservationSpace)

    __hash__ = None  # type: ignore[assignment]


register_space(ObservationSpace)
