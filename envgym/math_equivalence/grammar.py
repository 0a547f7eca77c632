"""Read a whole answer: relations, lists, sets, tuples, intervals, unions, matrices, words."""

from __future__ import annotations

import re

from envgym.math_equivalence.atoms import CONJUNCTIONS
from envgym.math_equivalence.expressions import ExpressionParser
from envgym.math_equivalence.labels import name_labels
from envgym.math_equivalence.lexer import tokenise
from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.moments import read_moment
from envgym.math_equivalence.tree import Relation, Series, Tree, Words

__all__ = ["read_tree"]

_RELATIONS = {
    "=": "=", "==": "=", "!=": "!=", "\\ne": "!=", "<": "<", ">": ">", "<=": "<=", "\\le": "<=",
    ">=": ">=", "\\ge": ">=", "\\in": "in", "\\notin": "notin",
}  # fmt: skip
_CLOSERS = {"(": (")", "]"), "[": ("]", ")"), "{": ("}",), "\\{": ("\\}",), "\\langle": ("\\rangle",)}
_PAIRS = {"\\{\\}": "{}", "\\langle\\rangle": "<>"}
_INEQUALITIES = frozenset({"<", "<=", ">", ">=", "!="})
_MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "array", "smallmatrix"})
_TEXT = re.compile(r"[^\W\d_][\w\s.,:;'()&/-]*", re.UNICODE)
_LONG_WORD = re.compile(r"[^\W\d_]{3,}")
_SHORT_WORDS = frozenset({"no", "up", "on", "in", "if"})
_NAMES = frozenset({"sqrt", "sin", "cos", "tan", "log", "exp", "inf", "infinity"})
_WORD = re.compile(r"[^\W\d_]+")


class AnswerParser(ExpressionParser):
    """The structural half of the grammar."""

    def answer(self) -> Tree:
        """Read all tokens as one answer."""
        items = self._items()
        if self.token.kind != "end":
            raise UnreadableError(f"unexpected {self.token.text!r}")
        return items[0] if len(items) == 1 else Series(self._list_kind(items), tuple(items))

    def _list_kind(self, items: list[Tree]) -> str:
        """Tell inequalities that hold one at a time (``x<1 or x>5``) from a list."""
        relations = all(isinstance(item, Relation) and _INEQUALITIES.issuperset(item.signs) for item in items)
        return "or" if relations and self._separators == {"or"} else ","

    def _items(self) -> list[Tree]:
        """Read items up to a closing bracket; a semicolon between lists makes each of them one item."""
        groups: list[list[Tree]] = [[self._relation()]]
        separators = set()
        while separator := self._separator():
            separators.add(separator)
            if separator == ";":
                groups.append([])
            groups[-1].append(self._relation())
        self._separators = separators
        if separators <= {";"}:
            return [item for group in groups for item in group]
        if len(groups) > 1:
            return [group[0] if len(group) == 1 else Series("()", tuple(group)) for group in groups]
        return groups[0]

    def _separator(self) -> str | None:
        """Consume and return ``,``, ``;``, ``and`` or ``or``; a comma before a conjunction adds nothing."""
        separator = self.accept(",", ";")
        while self.token.kind == "word" and self.token.text in CONJUNCTIONS:
            word = self.advance().text
            separator = separator if separator == ";" else word
        return separator

    def _relation(self) -> Tree:
        sides, signs = [self._residue()], []
        while sign := self.accept(*_RELATIONS):
            signs.append(_RELATIONS[sign])
            sides.append(self._residue())
        return Relation(tuple(sides), tuple(signs)) if signs else sides[0]

    def _residue(self) -> Tree:
        value = self._ratio()
        return Series("mod", (value, self.sum())) if self.accept("\\modulo") else value

    def _ratio(self) -> Tree:
        parts = [self._union()]
        while self.accept(":"):
            parts.append(self._union())
        return Series(":", tuple(parts)) if len(parts) > 1 else parts[0]

    def _union(self) -> Tree:
        parts = [self._difference()]
        while self.accept("\\cup"):
            parts.append(self._difference())
        if len(parts) == 1:
            return parts[0]
        if not all(isinstance(part, Series) for part in parts):
            raise UnreadableError("a union of something that is not a set")
        return Series("cup", tuple(parts))

    def _difference(self) -> Tree:
        whole = self.sum()
        while self.accept("\\setminus"):
            removed = self.sum()
            if not (isinstance(whole, Series) and isinstance(removed, Series)):
                raise UnreadableError("a difference of something that is not a set")
            whole = Series("minus", (whole, removed))
        return whole

    def group(self) -> Tree:
        """Read a bracketed group; one item in round or LaTeX brackets is that item."""
        if self.token.kind == "environment":
            return self._matrix()
        opener = self.advance().text
        if opener == "\\{" and self.accept("\\}"):
            return Series("{}", ())
        bars, self._open_bars = self._open_bars, 0
        separators = self._separators
        items = self._items()
        self._separators = separators
        self._open_bars = bars
        closer = self.accept(*_CLOSERS[opener])
        if closer is None:
            raise UnreadableError(f"{opener!r} is closed by {self.token.text or 'nothing'!r}")
        pair = opener + closer
        if len(items) == 1 and (pair in ("()", "{}") or _is_matrix(items[0])):
            return items[0]
        return Series(_PAIRS.get(pair, pair), tuple(items))

    def _matrix(self) -> Tree:
        name = self._environment_name("begin")
        if name not in _MATRICES:
            raise UnreadableError(f"unknown environment {name!r}")
        if name == "array" and self.accept("{"):
            while not self.accept("}"):
                self.advance()
                if self.token.kind == "end":
                    raise UnreadableError("array columns are not closed")
        rows: list[Tree] = []
        while self.token.kind != "environment" or not rows:
            cells = [self.sum()]
            while self.accept("&"):
                cells.append(self.sum())
            rows.append(Series("row", tuple(cells)))
            if not self.accept("\\row"):
                break
        if self._environment_name("end") != name:
            raise UnreadableError(f"{name!r} is not closed")
        return Series("matrix", tuple(rows))

    def _environment_name(self, edge: str) -> str:
        token = self.advance()
        if token.kind != "environment" or not token.text.startswith("\\" + edge):
            raise UnreadableError(f"expected \\{edge}, found {token.text or 'the end'!r}")
        return token.text.partition("{")[2].rstrip("*}")


def _is_matrix(tree: Tree) -> bool:
    return isinstance(tree, Series) and tree.kind == "matrix"


def read_tree(text: str, *, grouped: bool = True) -> Tree:
    """Read normalised ``text`` that is within the caps; raise ``UnreadableError`` when it is not an answer."""
    if text in ("\\emptyset", "\\{\\}"):
        return Series("{}", ())
    moment = read_moment(text)
    if moment is not None:
        return Words(moment)
    if _only_words(text):
        return Words(" ".join(text.casefold().split()))
    tokens = tokenise(name_labels(text), grouped=grouped)
    if not tokens:
        raise UnreadableError("the answer is empty")
    try:
        return AnswerParser(tokens).answer()
    except UnreadableError:
        if _LONG_WORD.search(text) and _TEXT.fullmatch(text):
            return Words(" ".join(text.casefold().split()))
        raise


def _only_words(text: str) -> bool:
    """Return whether ``text`` is prose (``Evelyn``, ``no``, ``not enough information``), not algebra."""
    if _TEXT.fullmatch(text) is None or any(c in "/:()" or c.isdecimal() for c in text):
        return False
    words = _WORD.findall(text)
    if any(word in _NAMES for word in words):
        return False
    return text.casefold() in _SHORT_WORDS or any(len(word) > 2 and word not in ("and",) for word in words)
