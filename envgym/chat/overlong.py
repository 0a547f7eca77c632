"""The words in which servers say that a conversation does not fit their model."""

from __future__ import annotations

import re

from envgym.web.service import Answer

__all__ = ["is_overlong"]

_CODES = (
    "context_length_exceeded",  # OpenAI, Azure, Groq, Together
    "exceed_context_size",  # llama.cpp
    "contextwindowexceedederror",  # LiteLLM
    "context_window_exceeded",
    "string_above_max_length",
    "prompt_too_long",
)
_CONTEXT = r"(?:context|sequence|session|prompt|input|request|model|kv)"
_LENGTH = r"(?:length|size|window|limit|len|cache|tokens?)"
_WORDS = re.compile(
    "|".join(
        (
            # "maximum context length is 4096 tokens", "maximum prompt length", "maximum model length of 8000"
            rf"max(?:imum|\.)?[ _](?:allowed |supported )?{_CONTEXT}[ _]{_LENGTH}",
            rf"{_CONTEXT}(?:'s)?[ _]max(?:imum)?[ _]{_CONTEXT}?[ _]?{_LENGTH}",
            # "exceeds the available context size", "exceed context limit", "exceeded model token limit"
            rf"exceed\w*\b[^.\n]{{0,60}}\b{_CONTEXT}[ _]{_LENGTH}",
            r"(?:exceed\w*|longer than|larger than|greater than|more than|too large for|not fit)\b[^\n]{0,60}"
            r"\b(?:context|max_model_len|max_seq_len|session_len|n_ctx)\b",
            rf"\bcontext[ _]{_LENGTH}\b[^\n]{{0,60}}\b(?:exceed|overflow|too (?:short|small)|reached)",
            # "prompt is too long", "Input is too long for requested model", "the prompt (length 9) is too long"
            r"\b(?:prompt|input|conversation|messages|request|context)\b[^.\n]{0,60}"
            r"\btoo (?:long|big|many tokens)",
            r"\btoo many (?:input |prompt )?tokens\b(?! per)",
            r"\binput is too large to process",
            # "The input token count (9) exceeds the maximum number of tokens allowed (8)"
            r"\b(?:input|prompt)\b[^.\n]{0,30}\btokens?\b[^.\n]{0,40}\bexceed",
            r"\b(?:prompt|input)\b[^.\n]{0,40}\b(?:exceed\w*|larger than|longer than)\b[^.\n]{0,40}"
            r"\b(?:max|limit|length)",
            # "`inputs` must have less than 1024 tokens", "`inputs` tokens + `max_new_tokens` must be <= 2048"
            r"inputs?`? (?:must have less than|tokens \+ )",
            # vLLM, where a prompt leaves no room at all: "max_tokens must be at least 1, got -5"
            r"max_(?:completion_)?tokens must be at least \d+, got (?:-\d|0\b)",
            r"range of input length should be",
            r"reduce the length of the (?:messages|prompt|input)",
            r"tokens to keep from the initial prompt is greater",
            r"prompt 超长|输入过长|上下文长度",
        )
    )
)
_STATUSES = frozenset({400, 404, 413, 414, 422, 500, 503})
"""Statuses that go with it. A limit of tokens a minute is told with a 429, and waits."""
_RATE = re.compile(r"rate[_ ]limit|per[ _](?:minute|day|hour)|\btp[md]\b|quota")
_LOOKED_AT = 20_000


def is_overlong(answer: Answer) -> bool:
    """Return whether the server refuses the request because the conversation is too long for its model.

    A request that is too large in bytes (413) counts: only the conversation grows.
    """
    if answer.status not in _STATUSES:
        return False
    text = answer.text[:_LOOKED_AT].lower()
    if any(code in text for code in _CODES):
        return True
    if _RATE.search(text):
        return False
    return answer.status == 413 or _WORDS.search(text) is not None
