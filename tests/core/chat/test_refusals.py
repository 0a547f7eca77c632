"""What a server does not take is read from its words; what is the user's to change is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from envgym.chat.refusals import PLAIN_ROLES, SYSTEM_ROLE, TOOLS, refused_parts

SENT: dict[str, Any] = {
    "model": "m",
    "temperature": 0.5,
    "max_tokens": 9,
    "seed": 1,
    "top_p": 0.9,
    "tools": [],
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "reasoning_content": "r", "reasoning": "r"},
        {"role": "tool", "content": "t", "tool_call_id": "c"},
    ],
}


def openai(message: str, param: str | None = None, code: str | None = None) -> str:
    return json.dumps(
        {"error": {"message": message, "param": param, "code": code, "type": "invalid_request_error"}}
    )


REFUSED = {
    "openai, limit": (
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        {"max_tokens"},
    ),
    "openai, value": (
        openai(
            "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is "
            "supported.",
            "temperature",
            "unsupported_value",
        ),
        {"temperature"},
    ),
    "openai, old": (openai("Unrecognized request argument supplied: seed"), {"seed"}),
    "openai, unknown": (openai("Unknown parameter: 'top_p'.", "top_p", "unknown_parameter"), {"top_p"}),
    "mistral": (
        json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "Extra inputs"}]}),
        {"top_p"},
    ),
    "mistral, tools": (
        json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "tools"], "msg": "Extra inputs"}]}),
        {TOOLS},
    ),
    "google": ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', {"seed"}),
    "groq": ("property 'reasoning_content' is unsupported", {"reasoning_content"}),
    "groq, short": ("'messages.2': property 'reasoning' is unsupported", {"reasoning"}),
    "litellm": (
        "UnsupportedParamsError: x does not support parameters: ['seed', 'top_p'], for model=m",
        {"seed", "top_p"},
    ),
    "anthropic": ("temperature: Extra inputs are not permitted", {"temperature"}),
    "a plain one": ("`seed` is not allowed here", {"seed"}),
    "vllm, tools": (
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        {TOOLS},
    ),
    "ollama, tools": ("registry.example/library/m does not support tools", {TOOLS}),
    "llama.cpp, tools": ("tools param requires --jinja flag", {TOOLS}),
    "openrouter, tools": ("No endpoints found that support tool use.", {TOOLS}),
    "deepseek, tools": ("m does not support Function Calling", {TOOLS}),
    "sglang, tools": ("tool calling is not supported for this model", {TOOLS}),
    "alternation": ("Conversation roles must alternate user/assistant/user/assistant/...", {PLAIN_ROLES}),
    "two roles": ("Only user and assistant roles are supported!", {PLAIN_ROLES}),
    "tool role": ("Unexpected message role: tool", {PLAIN_ROLES}),
    "tool role, pydantic": ("Input should be 'user' or 'assistant': 'tool' is not one of them", {PLAIN_ROLES}),
    "system role": ("System role not supported", {SYSTEM_ROLE}),
    "system messages": ("This template does not take them: system messages are not allowed", {SYSTEM_ROLE}),
}
USERS = {
    "a range": openai("temperature must be less than or equal to 1", "temperature", "invalid_value"),
    "a bound": "Invalid argument: top_p should be between 0 and 1",
    "no model": openai("The model `m` does not exist", None, "model_not_found"),
    "thoughts wanted": "The `reasoning_content` in the thinking mode must be passed back to the API.",
    "a schema": "Invalid schema for function 'seedling': not an object",
    "prose": "Your reasoning is not supported by evidence, and this is an unknown model",
    "nothing": "",
    "no JSON": "[" * 9999,
}


@pytest.mark.parametrize(("text", "parts"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_read(text: str, parts: set[str]) -> None:
    assert refused_parts(text, SENT) == parts


@pytest.mark.parametrize("text", USERS.values(), ids=USERS)
def test_what_the_user_has_to_change_is_not_left_out(text: str) -> None:
    assert refused_parts(text, SENT) == frozenset()


def test_nothing_is_refused_that_was_not_sent() -> None:
    sent = {"model": "m", "messages": [{"role": "user", "content": "u"}]}
    for text, _ in REFUSED.values():
        assert refused_parts(text, sent) <= {PLAIN_ROLES}
