"""Read a chat completion: what the model said and thought, which tools it calls, and whether that is decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from envgym.chat.refusals import REASONING
from envgym.web.service import Answer, Undecided

__all__ = ["ChatAnswer", "read_error", "read_answer"]

_ENDED = frozenset(
    {
        "stop",
        "eos",
        "eos_token",
        "end_turn",
        "stop_sequence",
        "complete",
        "tool_calls",
        "tool_call",
        "tool_use",
        "function_call",
    }
)
_OUT_OF_TOKENS = frozenset({"length", "max_tokens", "max_length", "max_output_tokens"})
_OUT_OF_CONTEXT = frozenset({"model_context_window_exceeded", "context_length_exceeded"})
_CALLED = frozenset({"tool_calls", "tool_call", "tool_use", "function_call"})
_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """A decided answer of a model."""

    text: str
    reasoning: str = ""
    echo: dict[str, Any] = field(default_factory=dict)
    """Fields that go back to the server with this message, as they came: its thoughts."""
    calls: tuple[Any, ...] = ()
    """Tool calls in OpenAI's form, unread."""
    cut_by: Literal["tokens", "context"] | None = None
    """The limit that ended the answer before its end."""


def read_error(answer: Answer) -> Answer:
    """Return ``answer`` with the status that its body tells: gateways send errors with a 200."""
    if answer.status != 200 or not answer.text.lstrip().startswith("{"):
        return answer
    body = answer.json()
    error = body.get("error") or (body if body.get("object") == "error" else None)
    if not error or body.get("choices"):
        return answer
    code = error.get("code") if isinstance(error, dict) else None
    code = int(code) if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) < 4 else code
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return Answer(status=status, text=answer.text, wait=answer.wait)


def read_answer(answer: Answer, sent: Mapping[str, Any]) -> ChatAnswer:
    """Return the first choice of a chat completion.

    Args:
        answer: the server's.
        sent: the request, whose limit of tokens tells what cut the answer.

    Raises:
        Undecided: it is no chat completion, or one that does not say how it ended; or a filter, an error or the
            server's end broke it off.
        Refusal: see ``Answer.check``.
    """
    answer.check()
    body = answer.json()
    try:
        choice = body["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason", "")
        if not isinstance(message, dict):
            raise TypeError("message is not an object")
    except (LookupError, TypeError, AttributeError) as error:
        raise Undecided(f"not a chat completion ({error!r:.80}): {answer.text}") from None
    if choice.get("error"):
        raise Undecided(f"the completion broke off: {choice['error']!r:.200}")
    content = message.get("content")
    if not (content is None or isinstance(content, str | list)):
        raise Undecided(f"not a chat completion: its content is {content!r:.80}")
    texts, thoughts = _parts(content)
    calls = _calls(message)
    text = "".join(texts) or _clean(message.get("refusal"))
    reasoning = _reasoning(message) or "".join(thoughts)
    said = bool(text or calls)
    reason = reason.lower() if isinstance(reason, str) else reason
    if isinstance(content, list) and content and not (said or reasoning):
        raise Undecided(f"the completion has no part that can be read: {content!r:.200}")
    # Some servers never tell a reason; none that do leave it out when they say nothing.
    if not (_decided(reason) or (reason == "" and said)) or (reason in _CALLED and not said):
        raise Undecided(f"the completion is not decided: finish_reason {reason!r:.60}")
    echo = {name: message[name] for name in REASONING if message.get(name)}
    if thoughts:
        echo["content"] = content
    return ChatAnswer(
        text=text, reasoning=reasoning, echo=echo, calls=calls, cut_by=_cut_by(reason, body.get("usage"), sent)
    )


def _decided(reason: Any) -> bool:
    return isinstance(reason, str) and reason in _ENDED | _OUT_OF_TOKENS | _OUT_OF_CONTEXT


def _cut_by(reason: str, usage: Any, sent: Mapping[str, Any]) -> Literal["tokens", "context"] | None:
    if reason in _OUT_OF_CONTEXT:
        return "context"
    if reason not in _OUT_OF_TOKENS:
        return None
    written = usage.get("completion_tokens") if isinstance(usage, dict) else None
    allowed = next((sent[name] for name in _LIMITS if name in sent), None)
    # What ends before its own limit met another one.
    short = isinstance(written, int) and isinstance(allowed, int) and 0 < written < allowed
    return "context" if short else "tokens"


def _parts(content: Any) -> tuple[list[str], list[str]]:
    """Return the texts and the thoughts of a content, which is text or a list of parts."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in [content] if isinstance(content, str) else content or ():
        kind = part.get("type") if isinstance(part, dict) else "text" if isinstance(part, str) else None
        if isinstance(part, str):
            texts.append(_clean(part))
        elif kind in ("text", "output_text"):
            texts.append(_clean(part.get("text")))
        elif kind == "refusal":
            texts.append(_clean(part.get("refusal")))
        elif kind in ("thinking", "reasoning"):
            thoughts += _strings(part.get("thinking") or part.get("reasoning") or part.get("text"))
    return texts, thoughts


def _reasoning(message: Mapping[str, Any]) -> str:
    for name in REASONING:
        if found := "".join(_strings(message.get(name))):
            return found
    return ""


def _strings(value: Any) -> Iterator[str]:
    """Yield the text of thoughts: a text, or a list of parts that hold one."""
    for part in value if isinstance(value, list) else [value]:
        inner = part if not isinstance(part, dict) else part.get("text") or part.get("summary")
        if isinstance(inner, str):
            yield _clean(inner)


def _calls(message: Mapping[str, Any]) -> tuple[Any, ...]:
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return tuple(calls)
    legacy = message.get("function_call")
    return ({"function": legacy},) if isinstance(legacy, dict) else ()


def _clean(text: Any) -> str:
    """Return text that can be stored: half a surrogate pair is replaced."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""
