"""Position in a list of tokens, and nesting depth of the rules that read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from envgym.math_equivalence.lexer import Token
from envgym.math_equivalence.limits import MAX_DEPTH, OverCapError, UnreadableError

__all__ = ["Cursor"]

_T = TypeVar("_T")
_END = Token("end", "")


class Cursor:
    """Operations that every rule of the grammar needs: look, consume, recurse."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        """The next token, or one of kind ``end``."""
        return self.tokens[self.position] if self.position < len(self.tokens) else _END

    @property
    def previous(self) -> Token:
        """The token consumed last; there must be one."""
        return self.tokens[self.position - 1]

    def advance(self) -> Token:
        """Consume and return the next token."""
        token = self.token
        self.position += 1
        return token

    def accept(self, *texts: str) -> str | None:
        """Consume the next token when it is one of ``texts``."""
        token = self.token
        if token.kind in ("symbol", "command") and token.text in texts:
            self.position += 1
            return token.text
        return None

    def expect(self, text: str) -> None:
        """Consume ``text`` or raise ``UnreadableError``."""
        if self.accept(text) is None:
            raise UnreadableError(f"expected {text!r}, found {self.token.text or 'the end'!r}")

    def nested(self, rule: Callable[[], _T]) -> _T:
        """Run ``rule`` one level deeper.

        Every recursion of the grammar passes here, so hostile nesting meets the cap before Python's own limit.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise OverCapError(f"nested deeper than the cap of {MAX_DEPTH}")
        result = rule()
        self._depth -= 1
        return result
