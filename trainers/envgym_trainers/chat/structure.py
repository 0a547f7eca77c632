"""What a chat template writes around messages, and how the text of environments is kept from spelling it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from envgym.records import Role
from envgym_trainers.chat.manners import REFUSALS, Entry, Manners
from envgym_trainers.models.turn_ends import special_tokens

__all__ = ["Structure"]

_BEFORE, _HERE, _AFTER = (f"\u2063{word}\u2063" for word in ("before", "here", "after"))
_TAG = re.compile(r"</?[A-Za-z][\w:-]*>|<[|｜][^|｜<>]+[|｜]?>|<[A-Za-z_]+[|｜]>|\[/?[A-Z][A-Z_]*\]|```\w*")
"""Tags as chat templates write them: ``</tool_response>``, ``<|tool|>``, ``<turn|>``, ``[/INST]``, fences."""


class Structure:
    """Special tokens, and the tags and role headers around messages: ``</tool_response>``, ``### User:``.

    In many templates these are ordinary text, which a tool's answer could spell: it would close itself and open a
    message of the user's. They are found in what the template writes between the messages of a probe. Headers that
    are a plain word, such as the role after ``<|im_start|>``, are left: their special token cannot be spelt.
    """

    def __init__(self, manners: Manners) -> None:
        specials = special_tokens(manners.tokenizer)
        tags, headers = set(specials), set[str]()
        for text in _between(manners):
            for found in _any_of(specials).split(text) if specials else [text]:
                tags.update(_TAG.findall(found))
                headers.update(_headers(found))
        self._tags = _any_of([*tags])
        self._headers = re.compile("|".join(sorted(headers)) or r"(?!)", re.MULTILINE)

    @classmethod
    def of(cls, manners: Manners) -> Structure:
        """Return the structure of a template, its tokenizer and the answers of tools; it is made once."""
        return _made(manners, len(manners.tokenizer))

    def broken(self, text: str) -> str:
        """Return ``text`` with a space inside everything that it must not spell; the rest is as it was."""
        text = self._headers.sub(lambda found: f"{found[0][:-1]} {found[0][-1]}", text)
        # A special token of one character cannot be broken; such text is quoted besides.
        return self._tags.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


@functools.lru_cache(maxsize=8)
def _made(manners: Manners, size: int) -> Structure:
    return Structure(manners)


def _between(manners: Manners) -> Iterator[str]:
    """Yield what the template writes before and after a message of each role, next to other messages."""
    user, system = Entry(role="user", content=_BEFORE), Entry(role="system", content=_BEFORE)
    said = manners.assistant(_BEFORE)
    roles: tuple[Role, ...] = ("system", "user", "assistant", "tool")
    for role in roles:
        for start in ([], [user], [system], [user, said]):
            here = manners.tool(_HERE) if role == "tool" else Entry(role=role, content=_HERE)
            turns = [*start, here, Entry(role="user", content=_AFTER)]
            for shown in (turns, turns[:-1]):
                try:
                    text = manners.render(shown, None)
                except REFUSALS:  # it has no such role, or not in this place
                    continue
                before, _, after = text.partition(_HERE)
                # Before the first message stands what is no structure: a default system message, the date.
                yield before.rpartition(_BEFORE)[2] if start else before.rpartition("\n")[2]
                yield after.partition(_AFTER)[0]


def _headers(text: str) -> Iterator[str]:
    """Yield patterns of the lines of ``text`` that are more than a word, such as ``User:``.

    They are matched at the start of a line, except those that the template writes after a message on its line.
    """
    for number, line in enumerate(text.split("\n")):
        header = _TAG.sub("", line).strip()
        if len(header) > 1 and re.search(r"\w", header) and not re.fullmatch(r"[\w\s]+", header):
            inside = number == 0 and line.startswith(" ")
            yield ("" if inside else r"^[ \t]*") + re.escape(header)


def _any_of(texts: list[str]) -> re.Pattern[str]:
    longest = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or r"(?!)")
