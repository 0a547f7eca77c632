r"""Bring the many spellings of LaTeX and Unicode to one.

``\dfrac`` and ``\tfrac`` become ``\frac``, thin spaces and ``\left`` are removed, ``×`` becomes ``*``. Meaning
never changes: white space stays where it separates, and unknown characters are left for the lexer to refuse. The
dollar is the only unit removed: its sign cannot be distinguished from LaTeX's delimiter of mathematics.
"""

from __future__ import annotations

import re

from envgym.math_equivalence.markup import strip_markup
from envgym.math_equivalence.units import is_known_unit
from envgym.math_equivalence.wording import plain_words, repeating_decimals, ungroup

__all__ = ["normalise"]

_CHARACTERS = {
    "−": "-", "–": "-", "﹣": "-", "－": "-", "＋": "+", "×": "*", "∙": "*", "⋅": "*", "·": "*", "÷": "/",
    "∕": "/", "⁄": "/", "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
    "φ": r"\phi ", "γ": r"\gamma ", "δ": r"\delta ", "μ": r"\mu ", "ω": r"\omega ", "σ": r"\sigma ",
    "∞": r"\infty ", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ",
    "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "°": r"\degree ", "º": r"\degree ",
    "％": "%", "，": ", ", "。": ".", "（": "(", "）": ")", "＝": "=",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}",
    "⅛": r"\frac{1}{8}", "⟨": r"\langle ", "⟩": r"\rangle ", "ℝ": r"\reals ", "’": "'", "′": "'",
    "¢": " cent ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u3000": " ", "\u205f": " ",
    "…": "...", "∖": r"\setminus ", "ℤ": r"\integers ", "∧": r"\text{ and }", "∨": r"\text{ or }", "∠": r"\angle ",
    "△": r"\triangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "；": "; ", "“": " ",
    "”": " ", "［": "[", "］": "]", "＜": "<", "＞": ">", "≦": r"\le ", "≧": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "∣": "|", "｜": "|", "‐": "-", "‑": "-", "‒": "-", "—": "-", "―": "-",
}  # fmt: skip
_CHARACTERS |= {chr(code): " " for code in range(0x2000, 0x200B)}
_CHARACTERS |= {chr(0xFF10 + digit): str(digit) for digit in range(10)}
_TRANSLATION = str.maketrans(_CHARACTERS)
_SCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")

_COMMANDS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom", "tbinom": "\\binom",
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "leq": "\\le ", "leqslant": "\\le ", "geq": "\\ge ",
    "geqslant": "\\ge ", "lt": "<", "gt": ">", "neq": "\\ne ", "lvert": "|", "rvert": "|", "vert": "|",
    "mid": "|", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]",
    "varnothing": "\\emptyset ", "degree": "\\degree ", "arctan": "\\atan ", "arcsin": "\\asin ",
    "arccos": "\\acos ", "approx": "=", "euro": " euro ", "pounds": " pound ", "quad": " ", "qquad": " ",
    "displaystyle": " ", "textstyle": " ", "limits": " ", "left": " ", "right": " ", "big": " ", "Big": " ",
    "bigg": " ", "Bigg": " ", "bigl": " ", "bigr": " ", "Bigl": " ", "Bigr": " ", "biggl": " ", "biggr": " ",
    "rm": " ", "bf": " ", "it": " ", "sf": " ", "tt": " ", "land": " and ", "wedge": " and ", "lor": " or ",
    "vee": " or ", "backslash": "\\setminus ", "smallsetminus": "\\setminus ", "notin": "\\notin ",
    "bmod": "\\bmod ", "dots": "...", "ldots": "...", "cdots": "...", "lVert": "|", "rVert": "|", "Vert": "|",
    "measuredangle": "\\angle ", "nobreakspace": " ", "thinspace": " ", "medspace": " ", "thickspace": " ",
    "real": "\\Re ", "Im": "\\Im ", "middle": " ", "varphi": "\\phi ", "varepsilon": "\\epsilon ",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SPACES = re.compile(r"\\[,;:! >]|~|&nbsp;")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\?\$")
_LEFT_DOT = re.compile(r"\\(?:left|right)\s*\.")
_WRAPPERS = re.compile(r"\\(?:text(?:rm|bf|it|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname)\s*\{([^{}]*)\}")
_REALS = re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R(?![a-zA-Z]))")
_INTEGERS = re.compile(r"\\(?:mathbb|mathbf)\s*(?:\{\s*Z\s*\}|Z(?![a-zA-Z]))")
_ALL_REALS = re.compile(r"(?:the set of )?all real(?: number| value)?s?(?: of x| x)?", re.IGNORECASE)
_POSITIVE_REALS = re.compile(r"\\reals\s*(?:\^\s*\{?\s*\+\s*\}?|_\s*\{?\s*\+\s*\}?|_\s*\{\s*>\s*0\s*\})")
_WITHOUT = re.compile(r"(?<=\\reals)\s*-")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))")
_PERCENT = re.compile(r"(?<=[0-9)} ])\s*\b(?:per\s?cents?|pct\.?|percentage|percents)(?![a-zA-Z])(?!\s+points?)")
_DOLLARS = re.compile(r"(?<=[0-9)} ])\s*\b(?:dollars?|USD)(?![a-zA-Z])")
_CURRENCY = re.compile(r"([€£])\s*([0-9][0-9.,]*)")
_CURRENCIES = {"€": "euro", "£": "pound"}
_WORDS_OF_TWO = frozenset({
    "or", "of", "to", "is", "in", "if", "no", "on", "up", "by", "at", "as", "am", "pm", "re", "im", "ln",
    "lg", "pi", "th", "st", "nd", "rd", "sq", "cu", "bn", "mn", "tn",
})  # fmt: skip
_SYSTEM = re.compile(
    r"(?:(?:\\left\s*)?\\\{\s*)?\\begin\s*\{\s*(cases|aligned|gathered)\s*\}(?P<rows>[^{}]*(?:\{[^{}]*\}[^{}]*)*?)"
    r"\\end\s*\{\s*\1\s*\}"
    r"|(?:\\left\s*)?\\\{\s*\\begin\s*\{\s*array\s*\}\s*\{[lcr| ]*\}(?P<cells>[^{}]*(?:\{[^{}]*\}[^{}]*)*?)"
    r"\\end\s*\{\s*array\s*\}(?!\s*(?:\\right\s*)?\\\})"
)
_ALIGNED = re.compile(r"&\s*(?==|<|>|\\(?:le|ge|ne)|\\in(?![a-z]))")
_SCRIPT = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|[₀₁₂₃₄₅₆₇₈₉]+")


def normalise(text: str) -> str:
    """Return ``text`` in its normal spelling, in linear time; it should have passed ``check_caps``."""
    text = strip_markup(text)
    if not text.isascii():
        text = _CURRENCY.sub(lambda m: f"{m[2]} {_CURRENCIES[m[1]]}", text)
        text = _SCRIPT.sub(_script, text)
        text = text.translate(_TRANSLATION)
    text = ungroup(text)
    if "\\" in text:
        text = _commands(text)
    text = text.replace("$", " ").replace("\\%", "%")
    if "ollar" in text or "USD" in text or "cent" in text or "pct" in text:
        text = _DOLLARS.sub("", _PERCENT.sub("%", text))
    text = plain_words(repeating_decimals(text)).strip()
    if _ALL_REALS.fullmatch(text):
        return "\\reals"
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def _script(match: re.Match[str]) -> str:
    digits = match[0].translate(_SCRIPTS)
    alone = len(digits) == 1 and not match.string[match.end() : match.end() + 1].isdecimal()
    return ("^" if match[1] else "_") + (digits if alone else f"{{{digits}}}")


def _commands(text: str) -> str:
    """Bring LaTeX commands to one spelling; those that only space or delimit become spaces."""
    text = text.replace("\\\\", "\\row ")
    text = _LEFT_DOT.sub(" ", text)
    if "\\begin" in text:
        text = _SYSTEM.sub(_listed, text)
    text = _DELIMITERS.sub(" ", text)
    text = _INTEGERS.sub(r"\\integers ", _REALS.sub(r"\\reals ", text))
    text = _WITHOUT.sub(r"\\setminus ", _POSITIVE_REALS.sub(r"(0,\\infty)", text))
    text = _DEGREES.sub(r"\\degree ", text)
    text = _SPACES.sub(" ", text)
    for _ in range(2):
        text = _WRAPPERS.sub(_unwrapped, text)
    return _COMMAND.sub(lambda m: _COMMANDS.get(m[1], m[0]), text)


def _listed(match: re.Match[str]) -> str:
    """Return a system of equations or inequalities as a list; what has cells of its own stays as it is."""
    rows = [row.strip().rstrip(",;.") for row in (match["rows"] or match["cells"] or "").split("\\row ")]
    listed = ", ".join(_ALIGNED.sub("", row) for row in rows if row)
    return match[0] if "&" in listed else f" {listed} "


def _unwrapped(match: re.Match[str]) -> str:
    r"""Return the words in ``\text{...}``; two letters that are no known word stay one name: HT is not TH."""
    word = match[1].strip()
    if len(word) == 2 and word.isalpha() and word.lower() not in _WORDS_OF_TWO and not is_known_unit(word):
        return rf" \name{{{word}}} "
    return f" {match[1]} "
