r"""Extract the final answer from an assistant's last message.

The reasoning of a model (up to the last ``</think>``) does not count; the *last* fence wins, so that an
honest correction (``\boxed{7} ... \boxed{12}``) is read as the model meant it. Text without a fence is an
answer only when it is a single line, when its last line says ``the answer is``, or when that line stands alone
below a heading such as ``Final answer``. A fence left open is a message cut short: no answer, rather than an
earlier one.
"""

from __future__ import annotations

import re

from envgym.math_equivalence.boxes import last_box

__all__ = ["extract_answer"]

_HASH_LINE = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
_SAID = re.compile(
    r"""[\s*_>-]*(?:(?:so|thus|therefore|hence|then|finally|and)[,:]?\s+)*[*_]*
    (?:(?:the|my|our)\s+)?(?:(?:final|correct|right)\s+)?answer[\s*_]*(?:\bis\b|:|=)[*_]*[\s:]*(?P<answer>\S.*)""",
    re.VERBOSE | re.IGNORECASE,
)
_HEADING = re.compile(r"[\s#*_>-]*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?[\s*_]*:?[\s*_]*", re.IGNORECASE)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this|that) is (?:correct|right)\.?\s*\Z", re.IGNORECASE)
"""What the few-shot prompt of Minerva (arXiv 2206.14858) teaches models to end with."""
_DISPLAY = ("\\[", "\\]", "$$")
_EMPHASIS = re.compile(r"[\s>-]*([*_]{1,3})(?=\w)")
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
    above, _, line = text.rpartition("\n")
    if len(line) > _LONGEST_LINE:
        return None if above else line
    line = _HOPE.sub("", line)
    for _ in range(2):  # Final answer: the final answer is 7
        said = _SAID.fullmatch(line) if "nswer" in line.lower() else None
        if said is None:
            break
        line, above = _without_emphasis(line, said["answer"].strip()), ""
    return line or None if not above else _below_heading(text)


def _without_emphasis(line: str, answer: str) -> str:
    """Return ``answer`` without the mark that closes what was opened before it: ``**Answer: 7**``."""
    opened = _EMPHASIS.match(line)
    if opened is None or answer.count(opened[1]) != 1:
        return answer
    return answer.removesuffix(".").removesuffix(opened[1])


def _below_heading(text: str) -> str | None:
    """Return the only line, displayed or not, below a last heading that announces an answer."""
    lines = [line.strip() for line in text[-_LONGEST_LINE:].splitlines()]
    last = [line for line in lines if line and line not in _DISPLAY][-2:]
    return last[1] if len(last) == 2 and _HEADING.fullmatch(last[0]) else None
