"""Functions with their arguments: roots, logarithms, functions of angles, sums over an index, bars."""

from __future__ import annotations

from fractions import Fraction

from envgym.math_equivalence.cursor import Cursor
from envgym.math_equivalence.lexer import Token
from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.literals import read_number
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
    negate,
    replaced,
    walk,
)

__all__ = ["FUNCTIONS", "FunctionParser", "scalar_node", "scalar_power"]

_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
_INVERSES = {name: "a" + name for name in _TRIGONOMETRIC}
_SPELLINGS = {
    **{"arc" + name: "a" + name for name in _TRIGONOMETRIC},
    "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "Re": "re", "Im": "im", "cosec": "csc", "tg": "tan",
    "ctg": "cot",
}  # fmt: skip
FUNCTIONS = frozenset({
    *_TRIGONOMETRIC, *_INVERSES.values(), *_SPELLINGS, "ln", "log", "lg", "exp", "abs", "floor", "ceil", "max",
    "min", "gcd", "lcm", "sqrt", "cis", "arg",
})  # fmt: skip
_OF_ANGLES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "cis"})
_DEGREE = Mul((Const("pi"), Num(Fraction(1, 180))))
_ANGLE_UNITS: dict[str, Tree] = {"degree": _DEGREE, "rad": Num(Fraction(1))}
_NO_SCALARS = Series | Relation | Words


class FunctionParser(Cursor):
    """Rules for calls; subclasses add atoms and the rules that join them."""

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
        raise NotImplementedError

    def atom(self, after_factor: bool) -> Tree:
        """Read one atom; with ``after_factor``, a word may be a unit."""
        raise NotImplementedError

    def function(self, name: str) -> Tree:
        """Read the call of a function whose name was just read."""
        name = _SPELLINGS.get(name, name)
        if name == "sqrt":
            return self._root()
        base = None
        if name == "log" and self.accept("_"):
            base = self.argument() if self.token.text == "{" else self.atom(False)
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

    def repeated(self, name: str) -> Tree:
        """Read a sum or product over an index, which becomes a symbol of its own: no name outside can be it."""
        self.expect("_")
        self.expect("{")
        index = self.nested(self.power)
        self.expect("=")
        low = self.nested(self.sum)
        self.expect("}")
        self.expect("^")
        high = self.argument()
        factors = [self.nested(self.power)]
        while self.starts_factor():
            factors.append(self.nested(self.power))
        body = scalar_node(Mul, factors)
        bound = Sym(f"index {sum(isinstance(part, FunctionCall) for part in walk(body))}")
        return FunctionCall(name, (low, high, replaced(body, lambda part: bound if part == index else None)))

    def barred(self) -> Tree:
        """Read the argument of a bar: a complex conjugate where it holds i, else a name of its own."""
        inside = self.argument()
        if isinstance(inside, Sym):  # a segment is named by its points, with a bar or without
            return inside if len(inside.name) > 1 and inside.name.isupper() else Sym(f"bar {inside.name}")
        if Const("i") not in walk(inside):
            raise UnreadableError("a bar over something that is neither digits, a name nor a complex number")
        return FunctionCall("conj", (inside,))

    def argument(self) -> Tree:
        r"""Read one argument of a LaTeX command: a group or, as LaTeX does, a single digit or letter."""
        token = self.token
        if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
            self.tokens[self.position] = Token("number", token.text[1:])
            return read_number(token.text[0])
        return self.nested(lambda: self.atom(False))

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
        while self.starts_factor() and self.token.text.lstrip("\\") not in FUNCTIONS:
            factors.append(self.power(after_factor=True))
        return (scalar_node(Mul, factors),)


def _in_radians(angle: Tree) -> Tree:
    """Return the argument of a trigonometric function as a plain number."""

    def rule(part: Tree) -> Tree | None:
        if isinstance(part, Sym) and part.unit:
            return _ANGLE_UNITS.get(part.name)
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
