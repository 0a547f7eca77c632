"""Text from outside made fit to be shown: without secrets, without control characters, and short."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

import httpx

from envgym import redaction

__all__ = ["redacted", "secrets_of", "shown"]

_READ = 2**16
"""Characters of a text that are looked at."""
_SHOWN = 300
_SECRET_NAME = r"[\w.-]*(?:key|token|secret|sig|signature|passw(?:or)?d|pwd|auth|credential|code)"


def secrets_of(url: httpx.URL) -> tuple[str, ...]:
    """Return what an address holds that nobody else may read: user, password, and values that may be keys."""
    pair = base64.b64encode(url.userinfo).decode() if url.userinfo else ""
    named = [
        value
        for name, value in url.params.multi_items()
        if re.fullmatch(_SECRET_NAME, name, re.IGNORECASE) or len(value) >= 20
    ]
    return tuple(secret for secret in (url.password, pair, *named) if secret)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` with every secret replaced, however it is escaped, and with what looks like one."""
    forms = {form for secret in secrets for form in _forms(secret)}
    # The longest first: one secret may be a part of another.
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, redaction.MARK)
    return redaction.redacted(text)


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the beginning of ``text`` in one printable line. Secrets go first: a cut may halve one."""
    known = tuple(secrets)
    clean = redacted(text[:_READ], known)
    if len(text) > _READ:
        clean = clean[: len(clean) - max((_begun(clean, form) for s in known for form in _forms(s)), default=0)]
    line = " ".join("".join(c if c.isprintable() else " " for c in clean).split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"


def _begun(text: str, secret: str) -> int:
    """Return the number of characters at the end of ``text`` that begin ``secret``."""
    return next((n for n in range(len(secret) - 1, 0, -1) if text.endswith(secret[:n])), 0)


def _forms(secret: str) -> set[str]:
    spelt = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    return {form for form in spelt if form}
