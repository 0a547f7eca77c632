r"""Remove what changes only the look of an answer: colour, bold type, Markdown, HTML, invisible characters.

What strikes an answer out (``\cancel``, ``\sout``, ``~~``) or hides a part of it (``\phantom``) stays, and is
refused.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["strip_markup"]

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Characters without ink that Unicode does not class as formats."""
_ZERO_WIDTH = re.compile(
    r"\\(?:hspace|vspace)\*?\s*\{\s*[+-]?0*\.?0*\s*[a-z]*\s*\}|\\(?:kern|hskip|mkern|mskip)\s*[+-]?0*\.?0+\s*[a-z]{2}"
    r"|\\(?:mathstrut|strut|null|relax|nobreak|allowbreak|noindent)(?![a-zA-Z])|\\[vh]?phantom\s*\{\s*\}"
)
_SPACE = re.compile(r"\\(?:hspace|vspace)\*?\s*\{[^{}]*\}|\\(?:kern|hskip|mkern|mskip)\s*[+-]?[0-9.]+\s*[a-z]{2}")
_COLOUR = re.compile(
    r"\\(?:fcolorbox\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}|(?:text|page)?color(?:box)?)\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}"
    r"|\\bbox\s*\[[^\[\]]*\]"
)
_LOOKS = (
    "mathbf|boldsymbol|bm|pmb|bold|textbf|textit|textsl|textsc|textsf|texttt|textup|emph|underline|underbar|underbrace"
    "|overbrace|mathit|mathsf|mathtt|mathnormal|mathscr|mathbin|mathrel|mathord|ensuremath|smash"
)
_LOOK = re.compile(rf"\\(?:{_LOOKS})\s*\{{([^{{}}]*)\}}")
_SWITCH = re.compile(
    rf"\\(?:{_LOOKS}|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bfseries|itshape"
    r"|boldmath|unboldmath|centering)(?![a-zA-Z])"
)
_TAG = re.compile(
    r"<(b|strong|i|em|u|mark|big|small|code|center|font|span|p|div)(?:\s[^<>]*)?>(.*?)</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(?<![\w)\]}*])(\*{2,3}|_{2,3})(?=[^\s*_])([^*]*?)(?<=[^\s*_])\1(?![\w(\[{\\*])")
_WHOLE = re.compile(r"\s*([*_`]|```|``)(?=[^\s*_`])([^*`]*)(?<=[^\s*_`])\1\.?\s*", re.DOTALL)
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&le;": r"\le ", "&ge;": r"\ge ", "&times;": r"\times ", "&minus;": "-"}
_MOST_NESTED = 4
_MARKS = frozenset("<*_`")


def strip_markup(text: str) -> str:
    """Return ``text`` without marks of look; the cap on its length bounds the time."""
    if not text.isascii():
        text = "".join(c for c in text if not _is_invisible(c))
    if "\\" in text:
        text = _SPACE.sub(" ", _ZERO_WIDTH.sub("", text))
        text = _COLOUR.sub("", text)
        text = _SWITCH.sub(" ", _LOOK.sub(r" \1 ", _LOOK.sub(r" \1 ", text)))
    for entity, meaning in _ENTITIES.items() if "&" in text else ():
        text = text.replace(entity, meaning)
    for _ in range(_MOST_NESTED if not _MARKS.isdisjoint(text) else 0):
        text = _TAG.sub(r"\2", text)
        text = _EMPHASIS.sub(r"\2", text)
        whole = _WHOLE.fullmatch(text)
        text = whole[2] if whole else text
    return text


def _is_invisible(character: str) -> bool:
    """Return whether a reader sees nothing, not even a space: formats, fillers, variation selectors."""
    return (
        unicodedata.category(character) == "Cf"
        or character in _BLANK
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )
