"""Tell the special tokens that a chat template writes from those that a message only spells."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from envgym_trainers.models.turn_ends import special_ids

__all__ = ["Quoting"]

# Private-use characters: no template writes them, and where a message does, they are quoted themselves.
_OPEN, _CLOSE = "\uf8e0", "\uf8e1"
_START, _BODY, _END = "\uf8e2", "\uf8e3", "\uf8e4"
_QUOTE = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_FRAME = re.compile(f"{_START}([0-9]+){_BODY}([^{_START}{_BODY}{_END}]*){_END}")
_LOOSE = re.compile(f"{_START}[0-9]+{_BODY}|{_END}")


class Quoting:
    """Renders text to ids such that quoted special tokens are spelt with ordinary ones.

    A template sees a quoted token as a few private-use characters, and writes them where it writes the message.
    Once its own special tokens are known by that, the text between them is restored and encoded as ordinary text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids = special_ids(tokenizer)
        self._added = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
        self._quoted = [*self._ids, _OPEN, _CLOSE, _START, _BODY, _END]
        self._number = {text: number for number, text in enumerate(self._quoted)}
        self._find = _any_of(self._quoted)
        self._find_special = _any_of([*self._ids])
        self.special_ids = frozenset(self._ids.values())

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Quoting:
        """Return the quoting of a tokenizer; it is made once."""
        return _made(tokenizer, len(tokenizer))

    def quote(self, text: str) -> str:
        """Return ``text`` with every special token in it quoted."""
        return self._find.sub(lambda found: f"{_OPEN}{self._number[found[0]]}{_CLOSE}", text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a rendered text: special tokens where they stand unquoted, and nowhere else."""
        own = self._find_special.findall(text)
        if not _QUOTE.search(text):
            ids = self._encode(text, ordinary=False)
            # A normaliser may make a special token of characters that only look like it.
            if [i for i in ids if i in self.special_ids] == [self._ids[token] for token in own]:
                return ids
        # In pieces only where it must be: some tokenizers treat the first word of a text in a way of its own.
        pieces = self._find_special.split(text)
        made: list[int] = []
        for number, piece in enumerate(pieces):
            before, after = own[number - 1 : number], own[number : number + 1]
            made += self._encode(self._restore(self._trim(piece, before, after)), ordinary=True)
            made += [self._ids[token] for token in after]
        return made

    def frame(self, text: str, number: int) -> str:
        """Return ``text`` between marks that name it, so that ``pieces`` finds it in a rendered conversation."""
        return f"{_START}{number}{_BODY}{text}{_END}"

    def unframe(self, text: str) -> str:
        """Return ``text`` without any marks of ``frame``."""
        return _LOOSE.sub("", text)

    def pieces(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield the parts of a rendered text in order, with the number of those that were framed and are whole."""
        end = 0
        for found in _FRAME.finditer(text):
            yield self.unframe(text[end : found.start()]), None
            yield found[2], int(found[1])
            end = found.end()
        yield self.unframe(text[end:]), None

    def _restore(self, text: str) -> str:
        return _QUOTE.sub(lambda found: self._quoted[int(found[1])], text)

    def _encode(self, text: str, *, ordinary: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=ordinary)
        return ids

    def _trim(self, piece: str, before: Sequence[str], after: Sequence[str]) -> str:
        """Take off the white space that the special tokens beside a piece swallow."""
        if any(getattr(self._added.get(token), "rstrip", False) for token in before):
            piece = piece.lstrip()
        if any(getattr(self._added.get(token), "lstrip", False) for token in after):
            piece = piece.rstrip()
        return piece


@functools.lru_cache(maxsize=4)
def _made(tokenizer: PreTrainedTokenizerBase, size: int) -> Quoting:
    return Quoting(tokenizer)


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern of any of ``texts``, the longest first, as tokenizers match; none match nothing."""
    longest = sorted((text for text in texts if text), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or r"(?!)")
