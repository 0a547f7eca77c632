"""An overlong conversation is known in every server's words, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from envgym.chat.overlong import is_overlong
from envgym.web.service import Answer

OVERLONG = {
    "openai": (400, {"error": {"message": "Too long.", "code": "context_length_exceeded"}}),
    "openai, words": (
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    ),
    "vllm, old": (400, "This model's maximum context length is 320 tokens. However, you requested 400 tokens"),
    "vllm, prompt": (
        400,
        "The decoder prompt (length 4097) is longer than the maximum model length of 4096. Make sure that ...",
    ),
    "vllm, total": (400, "The prompt (total length 700) is too long to fit into the model (context length 320)."),
    "vllm, tokens": (
        400,
        "'max_tokens' or 'max_completion_tokens' is too large: 96. This model's maximum context length is 320 "
        "tokens and your request has 300 input tokens (96 > 320 - 300).",
    ),
    "vllm, no room": (400, "max_tokens must be at least 1, got -12."),
    "vllm, input": (400, "Input length (500) exceeds model's maximum context length (320)."),
    "sglang": (400, "The input (900 tokens) is longer than the model's context length (512 tokens)."),
    "sglang, total": (
        400,
        "Requested token count exceeds the model's maximum context length of 512 tokens. You asked for 600",
    ),
    "llama.cpp": (
        400,
        {"error": {"message": "request (900 tokens) exceeds it", "type": "exceed_context_size_error"}},
    ),
    "llama.cpp, old": (500, "the request exceeds the available context size. try increasing the context size"),
    "llama.cpp, batch": (500, "input is too large to process. increase the physical batch size"),
    "llama-cpp-python": (
        400,
        "This model's maximum context length is 128 tokens, however you requested 300 tokens (200 in your prompt)",
    ),
    "tgi": (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048"),
    "tgi, sum": (
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. Given: 500 and 96",
    ),
    "ollama": (400, {"error": "prompt too long; exceeded max context length by 7 tokens"}),
    "ollama, input": (400, {"error": "the input length exceeds the context length"}),
    "anthropic": (400, "prompt is too long: 205000 tokens > 200000 maximum"),
    "anthropic, sum": (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
    "google": (400, "The input token count (40000) exceeds the maximum number of tokens allowed (32768)."),
    "mistral": (
        400,
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    ),
    "together": (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097."),
    "deepseek": (400, "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens"),
    "groq": (400, "Please reduce the length of the messages or completion."),
    "litellm": (400, "litellm.ContextWindowExceededError: AnthropicException"),
    "bedrock": (400, "Input is too long for requested model."),
    "xai": (400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    "fireworks": (400, "The prompt is too long: 9000, model maximum context length: 8191"),
    "cohere": (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081"),
    "moonshot": (400, "Invalid request: Your request exceeded model token limit: 8192"),
    "mlc": (400, "Request prompt has 900 tokens in total, larger than the model input length limit 512"),
    "tensorrt": (400, "Prompt length (900) exceeds maximum input length (512)."),
    "dashscope": (400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 6000]"),
    "lm studio": (400, "the number of tokens to keep from the initial prompt is greater than the context length"),
    "nginx": (413, "<html><h1>413 Request Entity Too Large</h1></html>"),
}
OTHERS = {
    "no model": (404, "The model `m` does not exist"),
    "no key": (401, "Incorrect API key provided"),
    "a value": (400, "temperature must be in [0, 2], got 3"),
    "a rate": (429, "Rate limit reached: maximum context tokens per minute"),
    "a rate, 413": (
        413,
        {"error": {"message": "Request too large: tokens per minute (TPM)", "code": "rate_limit_exceeded"}},
    ),
    "a field": (422, "Extra inputs are not permitted: seed"),
    "a tool": (400, "Invalid schema for function 'price': context must be an object"),
    "too large": (400, "max_tokens is too large: 99999. This model supports at most 4096 completion tokens"),
    "a completion": (200, "the prompt is too long for the maximum context length"),
    "an outage": (503, "upstream connect error or disconnect/reset before headers"),
    "busy": (503, "the server is overloaded, requests in the queue exceed the limit"),
    "a name": (400, "messages.0.name: string too long"),
}


def answer(status: int, body: object) -> Answer:
    return Answer(status=status, text=body if isinstance(body, str) else json.dumps(body))


@pytest.mark.parametrize(("status", "body"), OVERLONG.values(), ids=OVERLONG)
def test_an_overlong_conversation_is_known_as_such(status: int, body: object) -> None:
    assert is_overlong(answer(status, body))
    if isinstance(body, str):
        assert is_overlong(answer(status, {"object": "error", "message": body, "code": status}))
        assert is_overlong(answer(status, {"error": {"message": body.upper()}}))


@pytest.mark.parametrize(("status", "body"), OTHERS.values(), ids=OTHERS)
def test_nothing_else_is(status: int, body: object) -> None:
    assert not is_overlong(answer(status, body))


def test_a_large_answer_is_looked_at_in_little_time() -> None:
    for piece in ("exceeds ", "input ", "max_", "prompt is ", "context", "too many "):
        assert is_overlong(answer(400, piece * 1_000_000)) in (True, False)
