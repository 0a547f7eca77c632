r"""Bring the many spellings of LaTeX and Unicode to one.

``\dfrac`` and ``\tfrac`` become ``\frac``, thin spaces and ``\left`` are removed, ``×`` becomes ``*``. Meaning
never changes: white space stays where it separates, and unknown characters are left for the lexer to refuse. The
dollar is the only unit removed: its sign cannot be distinguished from LaTeX's delimiter of mathematics.
"""

from __future__ import annotations

import re

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
    "¢": " cent ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": " ", "\ufeff": " ",
}  # fmt: skip
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
    "rm": " ", "bf": " ", "it": " ", "varphi": "\\phi ", "varepsilon": "\\epsilon ",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SPACES = re.compile(r"\\[,;:! >]|~|&nbsp;")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\?\$")
_LEFT_DOT = re.compile(r"\\(?:left|right)\s*\.")
_WRAPPERS = re.compile(r"\\(?:text(?:rm|bf|it|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname)\s*\{([^{}]*)\}")
_REALS = re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R(?![a-zA-Z]))")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))")
_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:\{,\}|,?\\!|\\,|[ ])[0-9]{3})+(?![0-9])")
_PERCENT = re.compile(r"(?<=[0-9)} ])\s*\b(?:percent|per cent)(?![a-zA-Z])")
_DOLLARS = re.compile(r"(?<=[0-9)} ])\s*\b(?:dollars?|USD)(?![a-zA-Z])")
_CURRENCY = re.compile(r"([€£])\s*([0-9][0-9.,]*)")
_CURRENCIES = {"€": "euro", "£": "pound"}
_SCRIPT = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|[₀₁₂₃₄₅₆₇₈₉]+")


def normalise(text: str) -> str:
    """Return ``text`` in its normal spelling, in linear time; it should have passed ``check_caps``."""
    if not text.isascii():
        text = _CURRENCY.sub(lambda m: f"{m[2]} {_CURRENCIES[m[1]]}", text)
        text = _SCRIPT.sub(lambda m: ("^{" if m[1] else "_{") + m[0].translate(_SCRIPTS) + "}", text)
        text = text.translate(_TRANSLATION)
    text = _GROUPED.sub(lambda m: "".join(c for c in m[0] if c.isdecimal()), text)
    if "\\" in text:
        text = text.replace("\\\\", "\\row ")
        text = _LEFT_DOT.sub(" ", text)
        text = _DELIMITERS.sub(" ", text)
        text = _REALS.sub(r"\\reals ", text)
        text = _DEGREES.sub(r"\\degree ", text)
        text = _SPACES.sub(" ", text)
        for _ in range(2):
            text = _WRAPPERS.sub(r" \1 ", text)
        text = _COMMAND.sub(lambda m: _COMMANDS.get(m[1], m[0]), text)
    text = text.replace("$", " ").replace("\\%", "%")
    if "ollar" in text or "USD" in text or "cent" in text:
        text = _DOLLARS.sub("", _PERCENT.sub("%", text))
    text = text.strip()
    return text[:-1].rstrip() if text.endswith(".") else text
