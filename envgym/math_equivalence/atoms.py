"""Atoms of an expression: numbers, symbols, units, functions with their arguments."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.functions import FUNCTIONS, FunctionParser
from envgym.math_equivalence.lexer import Token
from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.literals import read_number, read_repeating
from envgym.math_equivalence.tree import (
    Const,
    FunctionCall,
    Num,
    Pow,
    Series,
    Sym,
    Tree,
    divide,
    negate,
)
from envgym.math_equivalence.units import multiplier, unit_name

__all__ = ["CONJUNCTIONS", "AtomParser"]

_CONSTANTS = {"pi": "pi", "e": "e", "i": "i", "infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf"}
_SETS: dict[str, Tree] = {
    "reals": Series("()", (negate(Const("inf")), Const("inf"))),
    "integers": Series("integers", ()),
    "emptyset": Series("{}", ()),
}
_GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda",
    "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
})  # fmt: skip
CONJUNCTIONS = frozenset({"or", "and"})
_CALLABLE_LETTERS = frozenset("fghFGH")
_FENCES = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil"), "|": ("|", "abs")}
_STARTS = frozenset({"(", "{", "|"})
_ENDING_COMMANDS = (
    *("}", "cup", "le", "ge", "ne", "in", "pm", "mp", "rangle", "rfloor", "rceil", "row", "|"),
    *("cap", "setminus", "notin", "modulo", "bmod", "degree"),
)
_ENDS = frozenset(f"\\{name}" for name in _ENDING_COMMANDS)
_BEFORE_A_NAME = frozenset("({[,;=|:/+-<>") | {"\\{", "\\le", "\\ge", "\\ne"}
_AFTER_A_NAME = frozenset(")}],;=|:/+-<>") | {"\\}", "\\le", "\\ge", "\\ne", ""}
_MINUS_ONE = negate(Num(Fraction(1)))


class AtomParser(FunctionParser):
    """Rules for one atom; subclasses add the rules that join atoms."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self._open_bars = 0
        self._separators: set[str] = set()

    def starts_factor(self) -> bool:
        """Return whether the next token can start a factor, so that juxtaposition multiplies."""
        token = self.token
        if token.kind in ("number", "repeating"):
            return True
        if token.kind == "environment":
            return token.text.startswith("\\begin")
        if token.kind == "word":
            return token.text not in CONJUNCTIONS
        if token.kind == "name":
            return True
        if token.kind == "command":
            return token.text not in _ENDS
        return token.text in _STARTS and not (token.text == "|" and self._open_bars)

    def atom(self, after_factor: bool) -> Tree:
        """Read one atom; with ``after_factor``, a word may be a unit."""
        token = self.token
        if token.kind == "number":
            return self._number()
        if token.kind == "repeating":
            return read_repeating(self.advance().text)
        if token.kind == "word":
            return self._word(self.advance().text, after_factor)
        if token.kind == "name":
            return Sym(self.advance().text.partition("{")[2].rstrip("}").strip())
        if token.text in _FENCES:
            return self._fenced(*_FENCES[self.advance().text])
        if token.text in ("(", "[", "{", "\\{", "\\langle") or token.kind == "environment":
            return self.nested(self.group)
        if token.kind == "command":
            return self._command(self.advance().text[1:])
        raise UnreadableError(f"unexpected {token.text or 'end'!r}")

    def _number(self) -> Tree:
        text = self.advance().text
        if self.accept("_"):
            return Sym(f"{text}_{self._subscript()}")
        number = read_number(text)
        mixed = self._mixed_part() if text.isdecimal() else None
        return number if mixed is None else Num(number.value + mixed)

    def _mixed_part(self) -> Fraction | None:
        r"""Read the ``\frac{1}{2}`` or `` 1/2`` of a mixed number, if one follows."""
        ahead = [token.text for token in self.tokens[self.position : self.position + 7]]
        if ahead[:2] == ["\\frac", "{"] and len(ahead) == 7 and ahead[3:5] == ["}", "{"] and ahead[6] == "}":
            top, bottom, length = ahead[2], ahead[5], 7
        elif ahead[:1] == ["\\frac"] and len(ahead) > 1 and ahead[1].isdecimal() and len(ahead[1]) == 2:
            top, bottom, length = ahead[1][0], ahead[1][1], 2
        elif len(ahead) > 2 and ahead[1] == "/":
            top, bottom, length = ahead[0], ahead[2], 3
        else:
            return None
        if not (top.isdecimal() and bottom.isdecimal() and 0 < int(top) < int(bottom)):
            return None
        self.position += length
        return Fraction(int(top), int(bottom))

    def _subscript(self) -> str:
        if not self.accept("{"):
            return self.advance().text
        parts = []
        while not self.accept("}"):
            if self.token.kind == "end":
                raise UnreadableError("a subscript is not closed")
            parts.append(self.advance().text)
        return "".join(parts)

    def _word(self, word: str, after_factor: bool) -> Tree:
        if word in _CONSTANTS:
            return Const(_CONSTANTS[word])
        if len(word) == 1:
            return self._symbol(word)
        if word in FUNCTIONS and (word != "min" or self.token.text == "("):
            return self.function(word)
        factor = multiplier(word) if after_factor else None
        if factor is not None:  # a power of a literal, as in scientific notation, so that 5 dozen is a value
            return Pow(Num(factor if factor > 1 else 1 / factor), Num(Fraction(1)) if factor > 1 else _MINUS_ONE)
        if word.isascii() and word.isupper() and self._stands_alone():
            return Sym(word)
        unit = unit_name(word)
        if unit is not None and (after_factor or len(word) > 4):
            return Sym(unit, unit=True)
        if len(word) <= 4 and word.isascii() and word not in CONJUNCTIONS:
            self.tokens[self.position : self.position] = [Token("word", letter) for letter in word[1:]]
            return self._word(word[0], after_factor)
        raise UnreadableError(f"unknown word {word!r}")

    def _stands_alone(self) -> bool:
        """Return whether the word just read is a whole term: capitals are then one name, and IV is not VI."""
        before = self.tokens[self.position - 2].text if self.position > 1 else "("
        return before in _BEFORE_A_NAME and self.token.text in _AFTER_A_NAME

    def _symbol(self, name: str) -> Tree:
        if name in _CALLABLE_LETTERS and self.token.text == "(":
            return FunctionCall("call:" + name, (self.nested(self.group),))
        if self.accept("_"):
            name = f"{name}_{self._subscript()}"
        return Sym(name)

    def _fenced(self, closer: str, name: str) -> Tree:
        self._open_bars += closer == "|"
        inside = self.nested(self.sum)
        self.expect(closer)
        self._open_bars -= closer == "|"
        return FunctionCall(name, (inside,))

    def _command(self, name: str) -> Tree:
        if name in _CONSTANTS:
            return Const(_CONSTANTS[name])
        if name in _SETS:
            return _SETS[name]
        if name in _GREEK:
            return self._symbol("\\" + name)
        if name == "frac":
            return divide(self.argument(), self.argument())
        if name == "binom":
            return FunctionCall("binom", (self.argument(), self.argument()))
        if name in ("sum", "prod"):
            return self.repeated(name)
        if name in ("overline", "bar"):
            return self.barred()
        if name == "sqrt" or name in FUNCTIONS:
            return self.function(name)
        raise UnreadableError(f"unknown command \\{name}")
