"""A policy behind an OpenAI-compatible HTTP server: vLLM, SGLang, llama.cpp, transformers serve."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pydantic

from envgym.chat.endpoint import ChatEndpoint, ConversationTooLong
from envgym.chat.tool_formats import MAX_CALLS, HermesFormat, dropped, make_call
from envgym.errors import PolicyError
from envgym.policies.interface import Completion, ContextFull, Policy, PolicySession
from envgym.records import Message, Observation, ToolCall, ToolSpec
from envgym.strict_json import parse_json

__all__ = ["HttpPolicy"]

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")


class HttpPolicy(Policy):
    """Asks a chat-completions endpoint for every action. Its trajectories carry no tokens.

    The key, if the server wants one, is read from ``ENVGYM_API_KEY`` and appears in no message or log.

    The history sent back holds earlier answers as they were parsed: an unreadable tool call goes back without its
    arguments, because servers refuse histories that they cannot parse.

    Raises:
        UserError: the address is not one of a server, or no header can hold the key.
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

    config: Config

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        c = self.config
        self._endpoint = ChatEndpoint(c.url, failure=PolicyError, timeout=c.timeout, pause=c.pause)
        self._body = {"model": c.model, "temperature": c.temperature}
        if c.max_tokens is not None:
            self._body["max_tokens"] = c.max_tokens

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _HttpSession(self, tools, seed)

    @property
    def limits(self) -> dict[str, int]:
        """The limit of a turn, where one is set; the server has its own."""
        return {} if self.config.max_tokens is None else {"max_tokens": self.config.max_tokens}

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    async def ask(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        """Return one completion: the first choice of the server's answer.

        Raises:
            ContextFull: the server says that the conversation is too long.
            PolicyError: the server cannot be reached or answers with something else.
        """
        body = {**self._body, "messages": messages, "seed": seed % 2**31}
        if tools:
            body["tools"] = tools
        try:
            return await self._endpoint.complete(body)
        except ConversationTooLong:
            raise ContextFull from None


class _HttpSession(PolicySession):
    def __init__(self, policy: HttpPolicy, tools: Sequence[ToolSpec], seed: int) -> None:
        self._policy = policy
        self._seed = seed
        self._messages: list[dict[str, Any]] = []
        self._tools = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.parameters},
            }
            for t in tools
        ]

    async def act(self, observation: Observation) -> Completion:
        self._messages += [_to_openai(m) for m in observation.messages]
        choice = await self._policy.ask(self._messages, self._tools, self._seed + len(self._messages))
        message = _from_openai(choice["message"], cut=choice.get("finish_reason") == "length")
        self._messages.append(_to_openai(message))
        return Completion(message=message)


def _to_openai(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        record["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        record["tool_calls"] = [_call_to_openai(call) for call in message.tool_calls]
    return record


def _call_to_openai(call: ToolCall) -> dict[str, Any]:
    name = _NO_NAME.sub("_", call.name)[:64] or "unreadable"
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
    }


def _from_openai(answer: dict[str, Any], cut: bool) -> Message:
    content = answer.get("content")
    text = content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""
    raw = answer.get("tool_calls")
    if not isinstance(raw, list) or not raw:
        # A server without a tool parser leaves the calls in the text.
        parsed = HermesFormat().parse(text)
        return Message(role="assistant", content=parsed.content, tool_calls=parsed.tool_calls, cut=cut)
    return Message(role="assistant", content=text, tool_calls=_calls(raw), cut=cut)


def _calls(raw: Sequence[Any]) -> tuple[ToolCall, ...]:
    calls = [_call(item, f"call_{i}") for i, item in enumerate(raw[:MAX_CALLS])]
    return (*calls, *dropped(len(raw) - MAX_CALLS))


def _call(raw: Any, fallback_id: str) -> ToolCall:
    call_id = raw.get("id") if isinstance(raw, dict) else None
    call_id = call_id if isinstance(call_id, str) and call_id.isascii() and call_id else fallback_id
    try:
        function = raw["function"]
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            arguments = parse_json(arguments)
        body = {"name": function.get("name"), "arguments": arguments}
        return make_call(parse_json(json.dumps(body)), call_id)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return ToolCall(name="", id=call_id, error=f"the tool call cannot be read ({error!s:.100})")
