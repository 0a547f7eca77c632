"""Text for a terminal: what a model, a data set, a plugin or a file wrote never controls it."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

from envgym.redaction import redacted, without_known_keys

__all__ = ["guarded_streams", "printable", "shown", "underlying"]

_KEPT = frozenset("\n\t")


def printable(text: str) -> str:
    r"""Return ``text`` with every character that is not seen, but blanks, newline and tab, shown as an escape.

    Escapes read ``\x1b`` or ``\u202e``: control characters, those that change the direction of writing or have no
    width, halves of surrogate pairs, and what is not assigned.
    """
    if text.isprintable():
        return text
    return text.translate({ord(c): _escaped(c) for c in set(text) if not _harmless(c)})


def shown(text: str) -> str:
    """Return ``text`` as a message may show it: ``redacted`` and ``printable``."""
    return printable(redacted(text))


def _harmless(character: str) -> bool:
    return character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class _Guarded:
    """A stream that writes text as ``clean`` returns it, and as escapes what its encoding lacks."""

    def __init__(self, stream: TextIO, clean: Callable[[str], str]) -> None:
        self.stream = stream
        self._clean = clean
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self.stream.write(self._clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def underlying(stream: TextIO) -> TextIO:
    """Return the stream that is written to as it is, for who draws on the terminal."""
    return stream.stream if isinstance(stream, _Guarded) else stream


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard standard output and standard error, whoever prints: this package, a library, a warning or a plugin.

    All text becomes ``printable``. Standard error loses whatever may be a key; standard output, which is data,
    the environment's keys alone. An error that nobody expected is printed with its traceback through the guard,
    and ends the process with 1.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Guarded(sys.stdout, lambda text: printable(without_known_keys(text))))
    sys.stderr = cast(TextIO, _Guarded(sys.stderr, shown))
    try:
        yield
    except Exception:  # noqa: BLE001 - its message may hold a model's text, and would be printed unguarded
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout, sys.stderr = streams
