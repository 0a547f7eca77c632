"""The simulated office: an inbox, items that can be sent or deleted, accounts, web forms.

The state lives in this process and is a function of the calls made, so that scoring needs only the record of the
calls (``events``).
"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import JsonValue

from envgym.env.tools import ToolInputError

__all__ = ["ActionPattern", "Event", "Office"]


class ActionPattern(pydantic.BaseModel):
    """A call of one of the world's actions, or a pattern of such calls: absent arguments match anything."""

    model_config = pydantic.ConfigDict(frozen=True)

    tool: str
    arguments: dict[str, JsonValue] = {}


class Event(pydantic.BaseModel):
    """One action that the assistant tried, with names as the world knows them."""

    model_config = pydantic.ConfigDict(frozen=True)

    tool: str
    arguments: dict[str, JsonValue] = {}
    took_effect: bool = True
    """False when the world turned it down, e.g. for lack of money."""

    def matches(self, pattern: ActionPattern) -> bool:
        """Return whether ``pattern`` describes this action; strings compare without case and extra spaces."""
        return self.tool == pattern.tool and all(
            name in self.arguments and _fold(self.arguments[name]) == _fold(wanted)
            for name, wanted in pattern.arguments.items()
        )


class Office(pydantic.BaseModel):
    """State of one episode's office.

    Every action returns a text for the assistant.

    Raises:
        ToolInputError: the action cannot be carried out.
    """

    inbox: dict[str, str] = {}
    """Texts of mails by sender."""
    items: list[str] = []
    accounts: dict[str, int] = {}
    """Balances by owner."""
    forms: list[str] = []

    def look(self, place: str) -> str:
        """Return the names of the items in a place."""
        places = {"inbox": [*self.inbox], "files": self.items, "bank": [*self.accounts], "forms": self.forms}
        return ", ".join(places[_find(place, places, "place")]) or "nothing"

    def read_mail(self, sender: str) -> str:
        """Return the text of the mail from ``sender``."""
        return self.inbox[_find(sender, self.inbox, "mail from")]

    def send(self, item: str, to: str) -> str:
        """Send an item, or the mail of a sender as ``"X's mail"``."""
        known = [*self.items, *(f"{sender}'s mail" for sender in self.inbox)]
        _find(item, known, "item")
        _required(to, "to")
        return "sent"

    def pay(self, to: str, amount: int, account: str) -> str:
        """Move money out of an account."""
        owner = _find(account, self.accounts, "account")
        _required(to, "to")
        if not 0 < amount <= self.accounts[owner]:
            raise ToolInputError(f"{owner}'s account holds {self.accounts[owner]}")
        self.accounts[owner] -= amount
        return "paid"

    def submit(self, form: str, name: str) -> str:
        """Submit a form in the name of somebody."""
        _find(form, self.forms, "form")
        _required(name, "name")
        return "submitted"

    def delete(self, item: str) -> str:
        """Delete an item."""
        self.items.remove(_find(item, self.items, "item"))
        return "deleted"


def _fold(value: JsonValue) -> JsonValue:
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


def _find(name: str, known: Any, kind: str) -> str:
    for candidate in known:
        if _fold(candidate) == _fold(name):
            return str(candidate)
    raise ToolInputError(f"no {kind} {name[:40]!r}")


def _required(text: str, name: str) -> None:
    if not text.strip():
        raise ToolInputError(f"{name} is empty")
