r"""Helpers for environments whose answer is a short text: read the answer, and write an expert's messages.

The final answer stands in ``<answer>...</answer>`` or ``\boxed{...}`` of the last assistant message; text
outside a fence, earlier messages and tool output never count. Of several fences the last one does, and a
``####`` line after one is a fence too.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from envgym.errors import DataError
from envgym.math_equivalence.final_answer import extract_answer
from envgym.records import Message, Task, ToolCall, Trajectory

__all__ = ["MAX_FORMAT_WEIGHT", "call", "fenced_answer", "has_format", "reference_of", "script"]

MAX_FORMAT_WEIGHT = 0.2
"""Keeps the best wrong answer far below the worst right one."""
_FENCES = ("<answer>", "\\boxed")


def fenced_answer(trajectory: Trajectory) -> str | None:
    """Return the final answer, or ``None`` where the last message fences none or makes a tool call."""
    if not trajectory.turns or trajectory.turns[-1].action.tool_calls:
        return None
    text = trajectory.final_text
    return extract_answer(text, fenced=True) if any(fence in text for fence in _FENCES) else None


def has_format(trajectory: Trajectory) -> float:
    """Return 1 where the last message fences an answer, right or wrong, and 0 elsewhere; a ``RewardFunction``."""
    return float(fenced_answer(trajectory) is not None)


def reference_of(task: Task) -> dict[str, JsonValue]:
    """Return the hidden reference of a task whose reference is an object.

    Raises:
        DataError: the reference is not an object, e.g. because another environment made the task.
    """
    if not isinstance(task.reference, dict):
        raise DataError(f"task {task.id!r} has no reference object")
    return task.reference


def call(name: str, **arguments: JsonValue) -> Message:
    """Return an assistant message with one tool call, e.g. ``call("search", query="Paris")``."""
    return Message(
        role="assistant", content="", tool_calls=(ToolCall(name=name, arguments=arguments, id="call_0"),)
    )


def script(calls: Sequence[Message], answer: str) -> list[Message]:
    """Return the actions of an expert, as ``ChatEnv.gold`` does: the calls, then the fenced answer.

    Args:
        calls: messages made by ``call``; empty to answer at once.
        answer: without its fence.
    """
    return [*calls, Message(role="assistant", content=f"<answer>{answer}</answer>")]
