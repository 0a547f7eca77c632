"""Keys are taken out of text before it is cut, in every spelling in which they turn up."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.records import Outcome
from envgym.redaction import MARK, quoted, redacted, redacted_values, without_known_keys

KEY = 'pA"s\\s/wörd&42-and-more'


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVGYM_API_KEY", KEY)
    monkeypatch.setenv("ACME_TOKEN", "acme-1234567890")
    monkeypatch.setenv("SHORT_TOKEN", "no")
    monkeypatch.setenv("HOMEWORK", "not-a-key-at-all")


@pytest.mark.parametrize(
    "spelt",
    [KEY, json.dumps(KEY), json.dumps(KEY, ensure_ascii=False), repr(KEY), quote(KEY), quote(KEY, safe="")],
)
def test_a_key_of_the_environment_goes_however_it_is_spelt(spelt: str) -> None:
    for clean in (redacted, without_known_keys):
        told = clean(f"refused: {spelt}, said the server")
        assert told.replace('"', "").replace("'", "") == f"refused: {MARK}, said the server"


def test_what_a_cut_left_of_a_key_goes_too() -> None:
    assert redacted("Bearer acme-1234567890"[:-4]) == f"Bearer {MARK}"
    assert redacted("no homework: not-a-key-at-all") == "no homework: not-a-key-at-all"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://me:hunter2@host:80/v1#m", "http://[key]@host:80/v1#m"),
        ("at https://ghp-tok@host/x, no", "at https://[key]@host/x, no"),
        ("http://me:p@ss@host/", "http://[key]@host/"),
        ("http://me:p/ss?w@host/", "http://[key]@host/"),
        ("redis://:pw@host", "redis://[key]@host"),
        ("http://h/v1?key=abc&n=1&access_token=d%20e#m", "http://h/v1?key=[key]&n=1&access_token=[key]#m"),
        ("https://h/b?sv=1&sig=Q%3D&X-Amz-Signature=00", "https://h/b?sv=1&sig=[key]&X-Amz-Signature=[key]"),
        ("http://h/?apiKey=abc'", "http://h/?apiKey=[key]'"),
        ("Authorization: Bearer abcdefgh", "Authorization: Bearer [key]"),
        ("got Basic bWU6cHc=", "got Basic [key]"),
        ("x-api-key: abcdefgh", "x-api-key: [key]"),
        ('{"api_key": "a\\"b c"}', '{"api_key": "[key]"}'),
        ("{'client_secret': 'abc'}", "{'client_secret': '[key]'}"),
        (r'"{\"password\": \"abc\"}"', r'"{\"password\": \"[key]\"}"'),
        ("run --api-key=abcd", "run --api-key=[key]"),
        ("key sk-proj-0123456789abcdefXYZ is wrong", "key [key] is wrong"),
        ("hf_abcdefghijklmnopqrst", "[key]"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", "[key]"),
    ],
)
def test_forms_of_keys_by_hand(text: str, left: str) -> None:
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1/@handle and me@host",
        "http://[::1]:80/v1?design=1&limit=2",
        "max_tokens = 96, eos_token: </s>, pad_token='<pad>'",
        "Bearer authentication failed, basic arithmetic did not",
        "the password: of the day is told at noon",
        "task-1234567890123456789",
    ],
)
def test_what_holds_no_key_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@settings(deadline=None, max_examples=200)
@given(text=st.text(alphabet=":/@?&=#'\"\\ \nabkeytokn[]%", max_size=60))
def test_nothing_is_left_to_do_after_once(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once


@settings(deadline=None, max_examples=100)
@given(before=st.text(max_size=30), after=st.text(max_size=30))
def test_a_key_goes_wherever_it_stands(before: str, after: str) -> None:
    assert "acme-1234567890" not in redacted(f"{before}acme-1234567890{after}")


@pytest.mark.parametrize(
    "piece", ["://a:", "?key", "token", "api-", "sk-", "eyJ.", "authorization", "x.y-", "\\'\""]
)
def test_hostile_text_takes_no_long_time(piece: str) -> None:
    """A quadratic form would take minutes."""
    assert redacted(piece * 20_000)


def test_values_keep_their_shape_and_their_types() -> None:
    values: dict[str, Any] = {
        "judge": "http://me:pw@host#m",
        "headers": {"Authorization": "whatever", "Accept": "json"},
        "list": [1, 2.5, True, None, ["acme-1234567890"]],
        "eos_token": "</s>",
        "max_tokens": 96,
        "password": "",
    }
    assert redacted_values(values) == {
        "judge": "http://[key]@host#m",
        "headers": {"Authorization": MARK, "Accept": "json"},
        "list": [1, 2.5, True, None, [MARK]],
        "eos_token": "</s>",
        "max_tokens": 96,
        "password": "",
    }


def test_text_is_cut_after_its_keys_are_gone() -> None:
    for start in range(60, 90):
        assert "acme" not in quoted("x" * start + "acme-1234567890")
    for start in range(1970, 2000):
        reason = Outcome.failed(ValueError("x" * start + "acme-1234567890")).reason
        assert "acme" not in reason
        assert len(reason) <= 2000
