r"""Spellings in words and in marks that stand for plain notation, brought to it before an answer is parsed.

Repeating decimals, separators of thousands, bases, ratios, units of area, residues: ``0.1212...`` becomes
``0.\overline{12}``, ``5 square cm`` becomes ``5 cm^{2}``, ``11 to 21`` becomes ``11:21``.
"""

from __future__ import annotations

import re

from envgym.math_equivalence.units import is_known_unit

__all__ = ["GROUPED", "plain_words", "repeating_decimals", "ungroup"]

_SEPARATOR = r"(?:\{,\}|,?\s*\\!\s*,?\s*|\\[,;: ]|\\thinspace|~|[ ]|'|\\?_)"
GROUPED = re.compile(rf"(?<![0-9.,_])[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+(?![0-9])")
_DOTTED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?(?![0-9.,])")
_DOTS = re.compile(
    r"(?<![0-9.])([0-9]*)\.([0-9]*)\\dot\s*(?:\{([0-9])\}|([0-9]))(?:([0-9]*)\\dot\s*(?:\{([0-9])\}|([0-9])))?"
)
_MARKED = re.compile(r"([0-9]*\.[0-9]*?)((?:[0-9][\u0305\u0307\u0304])(?:[0-9][\u0305\u0307\u0304]?)*)")
_ELLIPSIS = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]+)\s*(?:\.{2,4}|\\(?:l|c)?dots(?![a-zA-Z]))")
_AFTER_BAR = re.compile(r"(\\(?:overline|bar)\s*\{?[0-9]+\}?)\s*(?:\.{3}|\\(?:l|c)?dots(?![a-zA-Z]))")
_BRACKETED = re.compile(r"\s*([+-]?\s*[0-9]+\.[0-9]*)\(([0-9]+)\)\s*")
_RECURRING = re.compile(r"([0-9]*)\.([0-9]*)([0-9])\s*(?:\([a-z]+\)|recurring|repeating)(?![a-zA-Z])")
_SHORTEST_TAIL = 3

_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "twenty": 20,
    "binary": 2, "ternary": 3, "octal": 8, "decimal": 10, "hexadecimal": 16, "hex": 16, "bin": 2, "oct": 8,
}  # fmt: skip
_BASE = rf"(?:{'|'.join(_BASES)}|[0-9]{{1,2}})"
_SUBSCRIPT_BASE = re.compile(
    rf"(?<=[0-9A-F)])\s*_\s*(?:\{{\s*\(?\s*(?:base[\s-]*)?\(?\s*({_BASE})\s*\)?\s*\)?\s*\}}|\(({_BASE})\)|({_BASE})(?![a-z0-9]))"
)
_SAID_BASE = re.compile(
    rf"\(?([0-9A-F]*[0-9][0-9A-F]*)\)?\s*\(?\s*(?:in\s+)?(?:base[\s-]*\(?({_BASE})\)?|(binary|ternary|octal|hexadecimal))\)?"
)
_SAID = re.compile(r"\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is\b|:|=)\s*:?\s*(?=\S)", re.IGNORECASE)
_OUTWARD = re.compile(r"([\[\]])([^\[\]()]*,[^\[\]()]*)([\[\]])")
_SET_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[a-zA-Z])\s*(?:\\in\s*\\reals\s*)?(?:\||:)(?P<condition>[^|:{}]*[<>=\\][^|:{}]*)\\\}"
)
_WORDING = re.compile(r"[a-zA-Z≡∶：]")
_IN_BRACKETS = re.compile(r"\(\s*([0-9A-F]+)\s*\)\s*_")
_SQUARE = re.compile(r"(?<![a-zA-Z])(square|sq\.?|cubic|cu\.?)[\s-]+([a-zA-Z]+)(?![a-zA-Z])(?!\s*root)")
_SQUARED = re.compile(r"(?<![a-zA-Z])([a-zA-Z]+)\s+(squared|cubed)(?![a-zA-Z])")
_GLUED_POWER = re.compile(r"(?<![a-zA-Z])(mm|cm|dm|km|m|in|ft|yd|mi)([23])(?![0-9a-zA-Z])")
_PER = re.compile(r"(?<=[a-zA-Z])\s+per\s+(?=[a-zA-Z])(?!cent)")
_TO = re.compile(r"(?<=[0-9)}])(?:-to-|\s+to\s+)(?=[0-9(\\])|\s*(?:\\colon(?![a-zA-Z])|∶|：)\s*")
_CONGRUENT = re.compile(r"\\equiv(?![a-zA-Z])|≡")
_MODULUS = re.compile(r"\(\s*(?:\\?mod(?![a-zA-Z])|\\bmod|modulo)\s*([^()]*)\)")
_BARE_MODULUS = re.compile(r"\\(?:pmod|pod|mod)(?![a-zA-Z])|(?<![a-zA-Z\\])(?:mod|modulo)(?![a-zA-Z])")
_CHOOSE = re.compile(r"\{\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*\}")
_DIFFERENTIAL = r"(?:d|\\partial|\\mathrm\{d\})\s*(?:\^\s*(?:\{\d\}|\d))?\s*"
_DERIVATIVE = re.compile(
    rf"\\frac\s*\{{\s*({_DIFFERENTIAL}[a-zA-Z]?)\s*\}}\s*\{{\s*({_DIFFERENTIAL}[a-zA-Z]\s*(?:\^\s*(?:\{{\d\}}|\d))?)\s*\}}"
)
_FLAT_DERIVATIVE = re.compile(r"(?<![a-zA-Z\\])d([a-zA-Z])\s*/\s*d([a-zA-Z])(?![a-zA-Z])")


def ungroup(text: str) -> str:
    r"""Join the groups of three digits of ``1\!,234``, ``1'234``, ``1_234_567`` and ``1.234.567``."""
    text = GROUPED.sub(lambda m: "".join(c for c in m[0] if c.isdecimal()), text)
    return _DOTTED.sub(lambda m: m[0].replace(".", "").replace(",", "."), text)


def repeating_decimals(text: str) -> str:
    r"""Return ``text`` with every repeating decimal in the notation ``0.1\overline{6}``."""
    if "\\dot" in text:
        text = _DOTS.sub(
            lambda m: rf"{m[1]}.{m[2]}\overline{{{''.join(part or '' for part in m.groups()[2:])}}}", text
        )
    if not text.isascii():
        text = _MARKED.sub(lambda m: rf"{m[1]}\overline{{{''.join(c for c in m[2] if c.isdecimal())}}}", text)
    text = _AFTER_BAR.sub(r"\1", text)
    text = _ELLIPSIS.sub(_repeated, text)
    text = _BRACKETED.sub(r"\1\\overline{\2}", text) if _BRACKETED.fullmatch(text) else text
    return _RECURRING.sub(r"\1.\2\\overline{\3}", text) if "ing" in text else text


def _repeated(match: re.Match[str]) -> str:
    r"""Write ``0.1666...`` as ``0.1\overline{6}``; the text stays, and is refused, where nothing repeats."""
    whole, digits = match[1], match[2]
    for start in range(len(digits)):
        tail = digits[start:]
        for length in range(1, len(tail) // 2 + 1):
            shown = length > 1 or start == 0 or len(tail) >= _SHORTEST_TAIL
            if shown and all(tail[i] == tail[i % length] for i in range(len(tail))):
                return rf"{whole}.{digits[:start]}\overline{{{tail[:length]}}}"
    return match[0]


def plain_words(text: str) -> str:
    """Return ``text`` with bases, units of area, ratios, residues and intervals in one notation."""
    text = _SAID.sub("", text, count=1) if _SAID.match(text) else text
    if "[" in text:
        text = _OUTWARD.sub(_inward, text)
    if (built := _SET_BUILDER.fullmatch(text)) and built["name"] in built["condition"]:
        text = built["condition"]
    if "_" in text:
        text = _IN_BRACKETS.sub(r"\1_", text)
        text = _SUBSCRIPT_BASE.sub(lambda m: f"_{{{_base(m[1] or m[2] or m[3])}}}", text)
    elif said := _SAID_BASE.fullmatch(text.strip()):
        text = f"{said[1]}_{{{_base(said[2] or said[3])}}}"
    text = _SQUARE.sub(lambda m: f"{m[2]}^{{{'2' if m[1].startswith('sq') else '3'}}}", text)
    text = _SQUARED.sub(_unit_power, text)
    text = _GLUED_POWER.sub(r"\1^{\2}", text)
    text = _PER.sub("/", text)
    text = _TO.sub(":", text)
    if "d" in text or "\\partial" in text:
        text = _DERIVATIVE.sub(lambda m: _named(f"{m[1]} over {m[2]}"), text)
        text = _FLAT_DERIVATIVE.sub(lambda m: _named(f"d{m[1]} over d{m[2]}"), text)
        text = _BARE_MODULUS.sub(r"\\modulo ", _MODULUS.sub(r"\\modulo{\1}", text))
    if _CONGRUENT.search(text):
        text = _CONGRUENT.sub("=", text).replace("\\bmod", "\\modulo ")
    return _CHOOSE.sub(r"\\binom{\1}{\2}", text) if "choose" in text else text


def _inward(match: re.Match[str]) -> str:
    """Write ``]2,5[`` as ``(2,5)``."""
    return ("[" if match[1] == "[" else "(") + match[2] + ("]" if match[3] == "]" else ")")


def _base(name: str) -> int:
    return _BASES.get(name) or int(name)


def _unit_power(match: re.Match[str]) -> str:
    return f"{match[1]}^{{{'2' if match[2] == 'squared' else '3'}}}" if is_known_unit(match[1]) else match[0]


def _named(name: str) -> str:
    r"""Write a name that is one symbol, as the lexer reads it."""
    return rf"\name{{{''.join(c for c in name if c.isalnum())}}}"
