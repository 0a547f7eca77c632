r"""Find the last ``\boxed{...}`` of a message, and the boxes that make one answer with it.

``\boxed{1} and \boxed{2}`` is the list of both: boxes that only a comma, a semicolon, or a few words ending in
"and" or "or" separate. Any other text between two boxes makes the last one the answer. Two boxes inside one are no
answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["last_box"]

_TOKEN = re.compile(
    r"""\\(?:boxed|fbox)(?![a-zA-Z])\s*(?:
        (?P<open>\{)
        |(?P<bare>[-+]?(?:[0-9]+(?:[.,][0-9]+)*|\\frac\s*(?:[0-9]{2}|\{[^{}]*\}\s*\{[^{}]*\})|\\[a-zA-Z]+|[a-zA-Z]))
         (?=[\s.,;:!?$)\]}]|\\[)\]]|\*{2,3}(?![\w(\\])|$)
    )|\\.|[{}]""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"\\boxed\{([^{}\\]*)\}")
"""A box without anything to look into: by far the most, and read ten times as fast alone."""
_MARKS = ("\\boxed", "\\fbox")
_LONGEST_GAP = 120
_MOST_JOINED = 64
_DEEPEST = 3
_DEEPEST_BRACES = 1_000
_SPACING = re.compile(r"\\(?:[()\[\],;:! ]|quad|qquad)|[$&~]")
_WORDING = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_JOIN = re.compile(r"\s*(?:[,;]|[,;]?\s*(?:(?:[^\W\d_]+|\([a-z0-9]\))\s+){0,6}(?:and|or))\s*", re.IGNORECASE)
_CORRECTION = re.compile(
    r"\b(?:no|not|wait|actually|sorry|wrong|mistakes?|correct\w*|instead|rather|but|then|check|maybe|oops)\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Box:
    start: int
    """Position of the backslash."""
    inside: int
    """Position of the first character of the content."""
    end: int = -1
    """Position of the closing brace; -1 while it is open."""
    after: int = -1
    """Position of the first character behind the box."""
    boxes: list[_Box] = field(default_factory=list)
    """Boxes directly inside."""


def last_box(text: str) -> tuple[int, str | None]:
    """Return the position of the last box, or -1, and the answer in it and in the boxes joined to it.

    The answer is ``None`` where the last box is empty, left open, or holds two boxes. Time is linear.
    """
    if text.count("\\boxed") == 1 and "\\fbox" not in text and (plain := _PLAIN.search(text)):
        return plain.start(), plain[1].strip() or None
    boxes = _top_boxes(text) if "box" in text else []
    if not boxes:
        return -1, None
    last = boxes[-1]
    while last.end < 0 and last.boxes and last.boxes[-1].end >= 0:  # an open box before a closed one was given up
        last = last.boxes[-1]
        boxes = [last]
    position = max(box.start for box in _chain(last))
    if last.end < 0:
        return position, None
    joined = [last]
    for box in reversed(boxes[:-1]):
        if box.end < 0 or not _is_join(text, box.after, joined[-1].start):
            break
        joined.append(box)
        if len(joined) > _MOST_JOINED:
            return position, None
    contents = [_content(text, box) for box in reversed(joined)]
    if any(content is None for content in contents):
        return position, None
    different = list(dict.fromkeys(content for content in contents if content is not None))
    return position, different[0] if len(different) == 1 else ", ".join(filter(None, contents))


def _top_boxes(text: str) -> list[_Box]:
    """Return the last boxes that no other box holds, in order; braces outside boxes do not count."""
    top: list[_Box] = []
    stack: list[_Box | None] = []
    open_boxes: list[_Box] = []
    for match in _TOKEN.finditer(text, _scan_start(text)):
        siblings = open_boxes[-1].boxes if open_boxes else top
        if match["open"]:
            box = _Box(match.start(), match.end())
            siblings.append(box)
            stack.append(box)
            open_boxes.append(box)
        elif match["bare"]:
            siblings.append(_Box(match.start(), match.start("bare"), match.end("bare"), match.end("bare")))
        elif match[0] == "{" and stack:
            stack.append(None)
            if len(stack) > _DEEPEST_BRACES:
                break
        elif match[0] == "}" and stack:
            closed = stack.pop()
            if closed is not None:
                closed.end, closed.after = match.start(), match.end()
                open_boxes.pop()
    return top


def _scan_start(text: str) -> int:
    """Return where the last boxes start that can matter, or the end of a text without a box."""
    marks = [mark for mark in _MARKS if mark in text]
    position = len(text)
    for _ in range(2 * _MOST_JOINED):
        earlier = max((text.rfind(mark, 0, position) for mark in marks), default=-1)
        if earlier < 0:
            break
        position = earlier
    return position


def _chain(box: _Box) -> list[_Box]:
    """Return ``box``, the last box in it, the last one in that, and so on."""
    chain = [box]
    while chain[-1].boxes:
        chain.append(chain[-1].boxes[-1])
    return chain


def _content(text: str, box: _Box) -> str | None:
    """Return the content, with a single inner box opened; ``None`` if it is empty or holds several boxes."""
    chain = _chain(box)
    if len(chain) > _DEEPEST or any(len(outer.boxes) > 1 for outer in chain):
        return None
    content = text[chain[-1].inside : chain[-1].end]
    for outer, inner in zip(chain[-2::-1], chain[:0:-1], strict=True):
        content = f"{text[outer.inside : inner.start]}{content}{text[inner.after : outer.end]}"
    return content.strip() or None


def _is_join(text: str, start: int, end: int) -> bool:
    if end - start > _LONGEST_GAP:
        return False
    gap = _SPACING.sub(" ", _WORDING.sub(r" \1 ", text[start:end]))
    return _JOIN.fullmatch(gap) is not None and _CORRECTION.search(gap) is None
