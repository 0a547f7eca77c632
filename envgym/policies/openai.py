"""A policy behind an OpenAI-compatible HTTP server: vLLM, SGLang, llama.cpp, transformers serve, hosted ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import pydantic

from envgym.chat.endpoint import ChatEndpoint, ConversationTooLong
from envgym.chat.refusals import PLAIN_ROLES, TOOLS
from envgym.chat.tool_formats import tool_formats, unique_ids
from envgym.chat.wire import Said, read_calls, write_messages, write_tools
from envgym.errors import PolicyError
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.records import Message, Observation, ToolSpec

__all__ = ["HttpPolicy"]


class HttpPolicy(Policy):
    """Asks a chat-completions endpoint for every action. Its trajectories carry no tokens.

    The key, if the server wants one, is read from ``ENVGYM_API_KEY`` and appears in no message or log.

    What the server does not take is learnt from its refusal, said once in the log, and left out: fields of the
    request, roles, and tools, which the prompt then describes.

    The history sent back holds earlier answers as they were parsed: an unreadable tool call goes back without its
    arguments, because servers refuse histories that they cannot parse. Thoughts go back under the name that they
    came in.

    Raises:
        UserError: the address is not one of a server, there is no such tool format, or no header can hold the key.
    """

    class Config(Policy.Config):
        """The server, and how it samples."""

        url: str = pydantic.Field(description="base address, e.g. http://127.0.0.1:8000/v1")
        model: str = pydantic.Field(default="", description="name the server knows the model by")
        temperature: float = pydantic.Field(default=1.0, ge=0, description="of sampling; 0 is greedy")
        max_tokens: int | None = pydantic.Field(
            default=None, ge=1, description="sampled tokens per turn at most; the server's own limit if left out"
        )
        timeout: float = pydantic.Field(default=120.0, gt=0, description="seconds for one request")
        pause: float = pydantic.Field(
            default=0.5, ge=0, description="seconds before the first retry; each further one waits twice as long"
        )
        tools: Literal["request", "prompt"] = pydantic.Field(
            default="request",
            description="where tools are told: in the request, until the server refuses them, or in the prompt",
        )
        tool_format: str = pydantic.Field(
            default="hermes", description="of calls in the text, as model.tool_format"
        )
        omit: tuple[str, ...] = pydantic.Field(
            default=(), description="fields that the server does not take, e.g. seed; others are learnt"
        )
        extra: dict[str, pydantic.JsonValue] = pydantic.Field(
            default_factory=dict, description="further fields of every request, e.g. top_p"
        )

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        c = self.config
        refused = {*c.omit, *((TOOLS,) if c.tools == "prompt" else ())}
        self.tool_format = tool_formats.make(c.tool_format)
        self.endpoint = ChatEndpoint(c.url, failure=PolicyError, timeout=c.timeout, pause=c.pause, refused=refused)

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _HttpSession(self, tools, seed)

    @property
    def limits(self) -> dict[str, int]:
        """The limit of a turn, where one is set; the server has its own."""
        return {} if self.config.max_tokens is None else {"max_tokens": self.config.max_tokens}

    async def close(self) -> None:
        """Close the connections."""
        await self.endpoint.close()


class _HttpSession(PolicySession):
    def __init__(self, policy: HttpPolicy, tools: Sequence[ToolSpec], seed: int) -> None:
        self._policy = policy
        self._tools = tools
        self._seed = seed
        self._said: list[Said] = []
        self._ids: set[str] = set()

    async def act(self, observation: Observation) -> Completion:
        self._said += [Said(message=m) for m in observation.messages]
        try:
            answer = await self._policy.endpoint.complete(self._request)
        except ConversationTooLong:
            raise ContextFull from None
        message = Message(role="assistant", content=answer.text)
        if answer.calls:
            message = dataclasses.replace(message, tool_calls=read_calls(answer.calls, len(self._ids)))
        else:
            # A server without a tool parser leaves the calls in the text.
            message = self._policy.tool_format.parse_for(answer.text, self._tools)
        message = dataclasses.replace(
            message,
            tool_calls=unique_ids(message, self._ids).tool_calls,
            cut=answer.cut_by is not None,
            cut_by=answer.cut_by or "tokens",
            reasoning=answer.reasoning,
        )
        text = "" if answer.calls else answer.text
        # Content in parts goes back whole, unless calls were taken out of it.
        as_it_was = message.content == answer.text
        echo = {name: value for name, value in answer.echo.items() if name != "content" or as_it_was}
        self._said.append(Said(message=message, echo=echo, text=text))
        return Completion(message=message)

    def _request(self, refused: frozenset[str]) -> dict[str, Any]:
        c = self._policy.config
        body: dict[str, Any] = {
            "model": c.model,
            "temperature": c.temperature,
            **self._policy.limits,
            "messages": write_messages(self._said, self._tools, self._policy.tool_format, refused),
            "seed": (self._seed + len(self._said)) % 2**31,
            **c.extra,
        }
        if self._tools and PLAIN_ROLES not in refused:
            body["tools"] = write_tools(self._tools)
        return body
