"""A policy behind an OpenAI-compatible HTTP server: vLLM, SGLang, llama.cpp, transformers serve."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import httpx

from envgym.core import ChatEnv
from envgym.data import Message, Observation, Task, ToolCall
from envgym.errors import PolicyError
from envgym.parsing import HermesFormat
from envgym.policy import Completion, ContextFull, Policy, PolicySession

__all__ = ["HttpPolicy"]

_ATTEMPTS = 4
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
_MAX_BODY = 8 * 2**20


class HttpPolicy(Policy):
    """Asks a chat-completions endpoint for every action. Its trajectories carry no tokens.

    The key, if the server wants one, is read from ``ENVGYM_API_KEY`` and appears in no message or log.

    Args:
        url: base address, e.g. ``http://127.0.0.1:8000/v1``.
        model: name the server knows the model by.
        temperature: of sampling.
        max_tokens: sampled tokens per turn at most.
        timeout: seconds for one request.
    """

    def __init__(
        self, url: str, *, model: str, temperature: float, max_tokens: int, timeout: float = 120.0
    ) -> None:
        key = os.environ.get("ENVGYM_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout)
        self._url = url.rstrip("/") + "/chat/completions"
        self._body = {"model": model, "temperature": temperature, "max_tokens": max_tokens}

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        """Begin an episode."""
        return _HttpSession(self, env, seed)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        """One completion: the first choice of the server's answer.

        Raises:
            ContextFull: the server says that the conversation is too long.
            PolicyError: the server cannot be reached or answers with something else.
        """
        body = {**self._body, "messages": messages, "seed": seed % 2**31}
        if tools:
            body["tools"] = tools
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.5 * 2 ** (attempt - 1))
            try:
                response = await self._client.post(self._url, json=body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == httpx.codes.OK:
                return _first_choice(response)
            problem = f"HTTP {response.status_code}: {response.text[:300]}"
            if response.status_code not in _RETRIED:
                break
        if "context length" in problem or "maximum context" in problem:
            raise ContextFull
        raise PolicyError(f"no completion from {self._url}: {problem}")


class _HttpSession(PolicySession):
    def __init__(self, policy: HttpPolicy, env: ChatEnv, seed: int) -> None:
        self._policy = policy
        self._seed = seed
        self._messages: list[dict[str, Any]] = []
        self._tools = [
            {
                "type": "function",
                "function": {
                    "name": t.spec.name,
                    "description": t.spec.description,
                    "parameters": t.spec.parameters,
                },
            }
            for t in env.tools.values()
        ]

    async def act(self, observation: Observation) -> Completion:
        self._messages += [_to_openai(m) for m in observation.messages]
        choice = await self._policy.ask(self._messages, self._tools, self._seed + len(self._messages))
        answer = choice["message"]
        message = _from_openai(answer, cut=choice.get("finish_reason") == "length")
        self._messages.append({k: v for k, v in answer.items() if k in ("role", "content", "tool_calls") and v})
        self._messages[-1].setdefault("content", "")
        return Completion(message=message)


def _first_choice(response: httpx.Response) -> dict[str, Any]:
    if len(response.content) > _MAX_BODY:
        raise PolicyError(f"the server's answer is larger than {_MAX_BODY} bytes")
    try:
        choice: dict[str, Any] = response.json()["choices"][0]
        if not isinstance(choice["message"], dict):
            raise TypeError("message is not an object")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise PolicyError(f"the server's answer is not a chat completion: {error!r}") from None
    return choice


def _to_openai(message: Message) -> dict[str, Any]:
    record = {"role": message.role, "content": message.content}
    return record | ({"tool_call_id": message.tool_call_id} if message.role == "tool" else {})


def _from_openai(answer: dict[str, Any], cut: bool) -> Message:
    content = answer.get("content")
    text = content if isinstance(content, str) else ""
    raw = answer.get("tool_calls")
    if not isinstance(raw, list) or not raw:
        # A server without a tool parser leaves the calls in the text.
        parsed = HermesFormat().parse(text)
        return Message(role="assistant", content=parsed.content, tool_calls=parsed.tool_calls, cut=cut)
    return Message(role="assistant", content=text, tool_calls=tuple(map(_call, raw)), cut=cut)


def _call(raw: Any) -> ToolCall:
    try:
        function, call_id = raw["function"], str(raw.get("id") or "")
        arguments = json.loads(function["arguments"] or "{}")
        if not isinstance(arguments, dict):
            raise TypeError("arguments is not an object")
        return ToolCall(name=str(function["name"]), arguments=arguments, id=call_id)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return ToolCall(name="", error=f"the tool call cannot be read ({error!s:.100})")
