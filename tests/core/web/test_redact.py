"""No secret is shown: not in part, not escaped, not where a text is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.web.redact import redacted, secrets_of, shown

KEY = "sk-abc/def+0123456789=="


@pytest.mark.parametrize("spell", [str, quote, lambda key: quote(key, safe=""), lambda key: json.dumps(key)[1:-1]])
@pytest.mark.parametrize("offset", [0, 280, 290, 299, 300])
def test_a_key_is_gone_before_the_text_is_cut(spell: object, offset: int) -> None:
    said = shown("x" * offset + spell(KEY) + "y" * 500, [KEY])  # type: ignore[operator]
    assert len(said) <= 301
    assert not any(KEY[:n] in said for n in range(4, len(KEY)))


@settings(deadline=None, max_examples=40)
@given(st.integers(2**16 - 60, 2**16 + 10))
def test_a_key_that_the_end_of_what_is_read_cuts_is_gone_as_well(blanks: int) -> None:
    assert "sk" not in shown(" " * blanks + KEY + "y" * 100, [KEY])


@pytest.mark.parametrize(
    "text",
    [
        "GET http://me:hunter22@host/v1 failed",
        "https://token-hunter22@host",
        "see http://host/v1?api_key=hunter22&x=1",
        "see http://host/v1?x=1&access_token=hunter22",
        "Authorization: Bearer hunter22hunter22",
        "authorization: basic aHVudGVyMjI6aHVudGVyMjI=",
        "http://host/?sig=hunter22",
    ],
)
def test_what_looks_like_a_secret_is_gone_unasked(text: str) -> None:
    assert "hunter22" not in redacted(text)
    assert "aHVudGVy" not in redacted(text)


def test_ordinary_text_stays() -> None:
    text = "the key: see http://host:80/v1?page=2, mail a@b, bearer of news"
    assert redacted(text) == text
    assert shown("a\x1b[31mb\n\nc\u202e") == "a [31mb c"


def test_what_an_address_holds() -> None:
    secrets = secrets_of(httpx.URL("https://me:p%40ss@host/v1?api-version=1&api_key=abc&long=" + "z" * 20))
    assert set(secrets) == {"p@ss", base64.b64encode(b"me:p%40ss").decode(), "abc", "z" * 20}
    assert secrets_of(httpx.URL("http://host/v1?api-version=1")) == ()
