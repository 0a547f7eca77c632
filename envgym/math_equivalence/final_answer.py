r"""Extract the final answer from an assistant's last message.

The reasoning of a model (up to the last ``</think>``) does not count; the *last* fence wins, so that an
honest correction (``\boxed{7} ... \boxed{12}``) is read as the model meant it. Text without a fence is an
answer only when it is a single line. A fence left open is a message cut short: no answer, rather than an
earlier one.
"""

from __future__ import annotations

import re

__all__ = ["extract_answer"]

_BOXES = ("\\boxed{", "\\fbox{")
_HASH_LINE = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)


def extract_answer(text: str) -> str | None:
    r"""Return the final answer in ``text``, or ``None`` if there is none.

    The last of ``\boxed{...}``, ``<answer>...</answer>`` and a ``#### ...`` line counts, and a box inside the last
    answer tag is opened too. Time is linear in the length of ``text``.
    """
    think_end = text.rfind("</think>")
    if text.find("<think>", max(think_end, 0)) >= 0:
        return None
    if think_end >= 0:
        text = text[think_end + len("</think>") :]
    box = max(text.rfind(mark) for mark in _BOXES)
    tag = text.rfind("<answer>")
    hashes = text.rfind("####")
    last = max(box, tag, hashes)
    if last < 0:
        line = text.strip()
        return line if line and "\n" not in line else None
    if last == box:
        return _braced(text, text.index("{", box) + 1)
    if last == tag:
        end = text.find("</answer>", tag)
        return None if end < 0 else text[tag + len("<answer>") : end].strip() or None
    match = _HASH_LINE.match(text, hashes)
    return match[1].strip() if match else None


def _braced(text: str, start: int) -> str | None:
    """Return the text from ``start`` to the brace that closes it; escaped braces are ordinary characters."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        token = match[0]
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            if depth == 0:
                return text[start : match.start()].strip() or None
    return None
