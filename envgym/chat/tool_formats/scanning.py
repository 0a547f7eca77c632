"""Find the calls in a text: those that a model makes, not those that it thinks of, quotes or explains."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from envgym.chat.tool_formats.base import MAX_CALLS, dropped
from envgym.records import Message, ToolCall

__all__ = ["THOUGHTS", "Reader", "leads", "message_of", "read_message", "scanner"]

Reader = Callable[[str, re.Match[str]], "tuple[list[ToolCall], int] | None"]
"""Reads the calls at an opening mark, and returns the place behind them.

``None``: it is only mentioned. No calls: nor is there any in the text up to that place.
"""

THOUGHTS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|channel>thought": "<channel|>",
}
"""Marks around thoughts, and what ends them."""
_FENCE_END = re.compile(r"^[ \t]*```", re.MULTILINE)
_BEFORE = " \t"
_FAR = 40
"""Characters of white space before a mark that still stands where its line begins."""
_MOST = 256
"""Calls that are looked for; each may cost a pass over the text, and all but ``MAX_CALLS`` are dropped."""


def scanner(opening: str) -> re.Pattern[str]:
    """Return the pattern that ``read_message`` searches for, of the marks that open a call."""

    def any_of(texts: list[str]) -> str:
        return "|".join(map(re.escape, texts))

    return re.compile(
        f"(?P<call>{opening})|(?P<fence>^[ \\t]*```[^`\\n]*$)|(?P<tick>`+)"
        f"|(?P<think>{any_of([*THOUGHTS])})|(?P<thought>{any_of([*THOUGHTS.values()])})",
        re.MULTILINE,
    )


def leads(text: str, place: int) -> bool:
    """Return true if ``place`` is where a line begins, or behind a closing mark."""
    first = place
    while first and text[first - 1] in _BEFORE and place - first < _FAR:
        first -= 1
    return not first or text[first - 1] in "\n>]"


def read_message(text: str, marks: re.Pattern[str], read: Reader) -> Message:
    """Return the message of a text: its calls, with ids by place, and as content everything else.

    Args:
        text: what was sampled.
        marks: from ``scanner``.
        read: reads the calls at an opening mark; called at most twice for each.
    """
    scan = _Scan(text, marks, read)
    scan.run()
    return message_of("".join(scan.content), scan.calls)


def message_of(content: str, calls: list[ToolCall]) -> Message:
    """Return an assistant message; calls without an id get one by their place, too many of them an answer."""
    run: list[ToolCall] = []
    for place, call in enumerate(calls[:MAX_CALLS]):
        known = {other.id for other in run}
        run.append(dataclasses.replace(call, id=call.id if call.id not in {"", *known} else f"call_{place}"))
    more = dropped(len(calls) - MAX_CALLS)
    return Message(role="assistant", content=content.strip(), tool_calls=(*run, *more))


class _Scan:
    """One pass over a text, from left to right."""

    def __init__(self, text: str, marks: re.Pattern[str], read: Reader) -> None:
        self.text = text
        self.content: list[str] = []
        self.calls: list[ToolCall] = []
        self._marks = marks
        self._read = read
        self._done = 0
        """Place up to which the text is content or calls."""
        self._thought = False
        """A thought has ended."""
        self._first = len(text) - len(text.lstrip())
        self._line_end = -1
        self._unclosed: set[str] = set()
        """Marks that end a thought, and do not occur in what is left."""

    def run(self) -> None:
        place = 0
        while len(self.calls) < _MOST and (found := self._marks.search(self.text, place)):
            if found["call"] is not None:
                place = self._call(found)
            elif found["think"] is not None:
                place = self._think(found)
            elif found["thought"] is not None:
                place = self._end_of_thought(found)
            else:
                place = self._code(found)
        self.content.append(self.text[self._done :])

    def _call(self, found: re.Match[str]) -> int:
        made = self._read(self.text, found)
        if made is None or not made[0]:
            return max(found.end(), made[1] if made else 0)
        self.content.append(self.text[self._done : found.start()])
        self.calls += made[0]
        self._done = max(made[1], found.end())
        return self._done

    def _think(self, found: re.Match[str]) -> int:
        close = THOUGHTS[found[0]]
        end = -1 if close in self._unclosed else self.text.find(close, found.end())
        if end >= 0:
            self._thought = True
            return end + len(close)
        self._unclosed.add(close)
        # A completion that was cut in its thoughts; further on, the mark is only mentioned.
        return len(self.text) if found.start() == self._first else found.end()

    def _end_of_thought(self, found: re.Match[str]) -> int:
        """Take everything before for a thought, where the prompt began it: calls in it are drafts."""
        if not self._thought:
            self._thought = True
            self.content, self.calls, self._done = [], [], 0
        return found.end()

    def _code(self, found: re.Match[str]) -> int:
        """Return the end of a code fence, or of code within a line; that of the mark if it is not closed."""
        if found["fence"] is not None:
            last = _FENCE_END.search(self.text, found.end())
            end = last.end() if last else -1
        else:
            if self._line_end < found.end():
                line = self.text.find("\n", found.end())
                self._line_end = line if line >= 0 else len(self.text)
            end = 1 + self.text.find("`", found.end(), self._line_end)
        if end <= 0:
            return found.end()
        inside = found.end()
        while (call := self._marks.search(self.text, inside, end)) and call["call"] is None:
            inside = call.end()
        calls, behind = (self._read(self.text, call) if call else None) or ([], 0)
        # Marks of code inside a call's strings do not put the call into code.
        whole = bool(calls) and all(made.error is None for made in calls)
        return found.end() if whole and behind > end + 1 else end
