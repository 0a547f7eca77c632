r"""Extract the final answer from an assistant's last message.

The reasoning of a model (up to the last ``</think>``) does not count; the *last* fence wins, so that an
honest correction (``\boxed{7} ... \boxed{12}``) is read as the model meant it. Text without a fence is an
answer only when it is a single line, or when its last line says ``the answer is``. A fence left open is a message
cut short: no answer, rather than an earlier one.
"""

from __future__ import annotations

import re

from envgym.math_equivalence.boxes import last_box

__all__ = ["extract_answer"]

_HASH_LINE = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
_SAID = re.compile(
    r"""[\s*_>-]*(?:(?:so|thus|therefore|hence|then|finally|and)[,:]?\s+)*[*_]*
    (?:(?:the|my|our)\s+)?(?:(?:final|correct|right)\s+)?answer[\s*_]*(?:\bis\b|:|=)[\s*_:]*(?P<answer>\S.*)""",
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST_LINE = 2_000


def extract_answer(text: str, *, fenced: bool = False) -> str | None:
    r"""Return the final answer in ``text``, or ``None`` if there is none; with ``fenced``, only from a fence.

    The last of ``\boxed{...}``, ``<answer>...</answer>`` and a ``#### ...`` line counts, and a box inside the last
    answer tag is opened too. Time is linear in the length of ``text``.
    """
    think_end = text.rfind("</think>")
    if text.find("<think>", max(think_end, 0)) >= 0:
        return None
    if think_end >= 0:
        text = text[think_end + len("</think>") :]
    box, boxed = last_box(text)
    tag = text.rfind("<answer>")
    hashes = text.rfind("####")
    last = max(box, tag, hashes)
    if last < 0:
        return None if fenced else _unfenced(text.strip())
    if last == box:
        return boxed
    if last == tag:
        end = text.find("</answer>", tag)
        return None if end < 0 else text[tag + len("<answer>") : end].strip() or None
    match = _HASH_LINE.match(text, hashes)
    return match[1].strip() if match else None


def _unfenced(text: str) -> str | None:
    line = text.rpartition("\n")[2]
    said = _SAID.fullmatch(line) if len(line) <= _LONGEST_LINE and "nswer" in line.lower() else None
    if said is not None:
        return said["answer"].strip()
    return text if text and "\n" not in text else None
