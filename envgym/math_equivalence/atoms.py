"""Atoms of an expression: numbers, symbols, units, functions with their arguments."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.cursor import Cursor
from envgym.math_equivalence.lexer import Token
from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.literals import read_number, read_repeating
from envgym.math_equivalence.tree import (
    Add,
    Const,
    FunctionCall,
    Mul,
    Num,
    Pow,
    Relation,
    Series,
    Sym,
    Tree,
    Words,
    divide,
    negate,
    replaced,
    walk,
)
from envgym.math_equivalence.units import multiplier, unit_name

__all__ = ["CONJUNCTIONS", "AtomParser", "scalar_node", "scalar_power"]

_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
_INVERSES = {name: "a" + name for name in _TRIGONOMETRIC}
_FUNCTIONS = frozenset(
    {*_TRIGONOMETRIC, *_INVERSES.values(), "ln", "log", "lg", "exp", "abs", "floor", "ceil"}
    | {"max", "min", "gcd", "lcm", "arcsin", "arccos", "arctan", "sqrt", "cis", "Re", "Im", "arg"}
    | {"arccot", "arcsec", "arccsc", "arsinh", "arcosh", "artanh", "arcsinh", "arccosh", "arctanh", "cosec", "tg", "ctg"}
)
_SPELLINGS = {
    **{"arc" + name: "a" + name for name in _TRIGONOMETRIC},
    "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "Re": "re", "Im": "im", "cosec": "csc", "tg": "tan",
    "ctg": "cot",
}  # fmt: skip
_OF_ANGLES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "cis"})
_DEGREE = Mul((Const("pi"), Num(Fraction(1, 180))))
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
_ENDS = frozenset(
    rf"\{name}"
    for name in ("}", "cup", "le", "ge", "ne", "in", "pm", "mp", "rangle", "rfloor", "rceil", "row", "|")
    + ("cap", "setminus", "notin", "modulo", "bmod", "degree")
)
_BEFORE_A_NAME = frozenset("({[,;=|:/+-<>") | {"\\{", "\\le", "\\ge", "\\ne"}
_AFTER_A_NAME = frozenset(")}],;=|:/+-<>") | {"\\}", "\\le", "\\ge", "\\ne", ""}
_MINUS_ONE = negate(Num(Fraction(1)))
_NO_SCALARS = Series | Relation | Words


class AtomParser(Cursor):
    """Rules for one atom; subclasses add the rules that join atoms."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self._open_bars = 0
        self._separators: set[str] = set()

    def sum(self) -> Tree:
        """Read a signed sum of terms."""
        raise NotImplementedError

    def power(self, after_factor: bool = False) -> Tree:
        """Read an atom with its postfix signs and exponent."""
        raise NotImplementedError

    def exponent(self) -> Tree:
        """Read an exponent, after ``^``."""
        raise NotImplementedError

    def group(self) -> Tree:
        """Read a bracketed group."""
        raise NotImplementedError

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
        if word in _FUNCTIONS and (word != "min" or self.token.text == "("):
            return self._function(word)
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
            return divide(self._argument(), self._argument())
        if name == "binom":
            return FunctionCall("binom", (self._argument(), self._argument()))
        if name in ("sum", "prod"):
            return self._repeated(name)
        if name in ("overline", "bar"):
            return self._barred()
        if name == "sqrt" or name in _FUNCTIONS:
            return self._function(name)
        raise UnreadableError(f"unknown command \\{name}")

    def _argument(self) -> Tree:
        r"""Read one argument of a LaTeX command: a group or, as LaTeX does, a single digit or letter."""
        token = self.token
        if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
            self.tokens[self.position] = Token("number", token.text[1:])
            return read_number(token.text[0])
        return self.nested(lambda: self.atom(False))

    def _function(self, name: str) -> Tree:
        name = _SPELLINGS.get(name, name)
        if name == "sqrt":
            return self._root()
        base = None
        if name == "log" and self.accept("_"):
            base = self._argument() if self.token.text == "{" else self.atom(False)
        power = self.nested(self.exponent) if self.accept("^") else None
        if power == negate(Num(Fraction(1))) and name in _INVERSES:
            name, power = _INVERSES[name], None
        arguments = self._function_arguments()
        if name in _OF_ANGLES:
            degrees = self.accept("\\degree") is not None
            arguments = tuple(_in_radians(Mul((angle, _DEGREE)) if degrees else angle) for angle in arguments)
        if name == "cis":
            sine = Mul((Const("i"), FunctionCall("sin", arguments)))
            return scalar_node(Add, [FunctionCall("cos", arguments), sine])
        call = FunctionCall(name, arguments if base is None else (*arguments, base))
        if name == "exp":
            return scalar_power(Const("e"), arguments[0])
        return call if power is None else Pow(call, power)

    def _repeated(self, name: str) -> Tree:
        """Read a sum or product over an index, which becomes a symbol of its own: no name outside can be it."""
        self.expect("_")
        self.expect("{")
        index = self.nested(self.power)
        self.expect("=")
        low = self.nested(self.sum)
        self.expect("}")
        self.expect("^")
        high = self._argument()
        factors = [self.nested(self.power)]
        while self.starts_factor():
            factors.append(self.nested(self.power))
        body = scalar_node(Mul, factors)
        bound = Sym(f"index {sum(isinstance(part, FunctionCall) for part in walk(body))}")
        return FunctionCall(name, (low, high, replaced(body, lambda part: bound if part == index else None)))

    def _barred(self) -> Tree:
        """Read the argument of a bar: a complex conjugate where it holds i, else a name of its own."""
        inside = self._argument()
        if isinstance(inside, Sym):  # a segment is named by its points, with a bar or without
            return inside if len(inside.name) > 1 and inside.name.isupper() else Sym(f"bar {inside.name}")
        if Const("i") not in walk(inside):
            raise UnreadableError("a bar over something that is neither digits, a name nor a complex number")
        return FunctionCall("conj", (inside,))

    def _root(self) -> Tree:
        index: Tree = Num(Fraction(2))
        if self.accept("["):
            index = self.nested(self.sum)
            self.expect("]")
        if self.token.kind == "number" and len(self.token.text) > 1:
            raise UnreadableError("a root of several digits needs braces")
        return FunctionCall("root", (self.nested(lambda: self.atom(False)), index))

    def _function_arguments(self) -> tuple[Tree, ...]:
        if self.token.text in ("(", "{"):
            inside = self.nested(self.group)
            return inside.items if isinstance(inside, Series) and inside.kind == "()" else (inside,)
        factors = [self.nested(self.power)]
        while self.starts_factor() and self.token.text.lstrip("\\") not in _FUNCTIONS:
            factors.append(self.power(after_factor=True))
        return (scalar_node(Mul, factors),)


def _in_radians(angle: Tree) -> Tree:
    """Return the argument of a trigonometric function as a plain number."""

    def rule(part: Tree) -> Tree | None:
        if isinstance(part, Sym) and part.unit:
            return {"degree": _DEGREE, "rad": Num(Fraction(1))}.get(part.name)
        return None

    return replaced(angle, rule)


def scalar_power(base: Tree, exponent: Tree) -> Tree:
    """Return ``base ** exponent``; raise ``UnreadableError`` for a bracketed series."""
    if isinstance(base, _NO_SCALARS) or isinstance(exponent, _NO_SCALARS):
        raise UnreadableError("a power of a bracketed series")
    return Pow(base, exponent)


def scalar_node(node: type[Add] | type[Mul], parts: list[Tree]) -> Tree:
    """Return the only part, or the sum or product of several; raise ``UnreadableError`` for a bracketed series."""
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, _NO_SCALARS) for part in parts):
        raise UnreadableError("arithmetic on a bracketed series")
    return node(tuple(parts))
