"""Whatever stands in a recipe or an override, it is read or refused in words, and quickly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damage import damage_file

from envgym.config import Section, parse_overrides, read_recipe, validate_settings
from envgym.errors import RecipeError

TOML = b"""# a recipe
stage = "rl"
steps = 20
learning_rate = 1e-3  # a float
tags = ["x", 'y', \"\"\"z\"\"\"]
model = { path = "builtin:tiny", context = 64 }

[objective]
name = "grpo"

[[mix]]
env = "math_problems"
settings.families = ["sums"]
[[mix]]
env = "search_qa"
weight = 0.5
"""
PIECES = (
    b"[", b"]", b"{", b"}", b"=", b".", b'"', b"'", b'"""', b"\n", b"#", b"\0", b"\x1b", b"\xff", b"\\u0000",
    b"\\ud800", b"nan", b"-inf", b"2024-01-01", b"25:61:61", b"0x" + b"f" * 99, b"9" * 99, b"9" * 4999, b"1e999",
    b"a." * 99, b"[" * 999, b"-",
    b"{a=" * 999, b"[[mix]]\n", b"steps = 1\n", "\u202e".encode(), b"\xef\xbb\xbf", b"\r", b"true",
)  # fmt: skip


class Recipe(Section):
    steps: int = 3
    learning_rate: float = 1e-3


def damaged(rng: random.Random) -> bytes:
    text = TOML
    for _ in range(rng.randrange(1, 5)):
        start = rng.randrange(len(text) + 1)
        end = rng.choice((start, start, start + rng.randrange(9)))
        text = text[:start] + rng.choice(PIECES) + text[end:]
    return text


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_recipe_is_read_or_refused_with_its_name(tmp_path: Path, seed: int) -> None:
    refused: list[tuple[str, str]] = []
    for number in range(300):
        rng = random.Random(f"{seed} {number}")
        path = tmp_path / f"{number}.toml"
        path.write_bytes(damaged(rng))
        if number % 6 == 0:
            damage_file(path, rng)
        try:
            validate_settings(Recipe, read_recipe(path), path.name)
        except RecipeError as error:
            refused.append((path.name, str(error)))
    assert len(refused) > 100
    assert not [told for told in refused if told[0] not in told[1] or len(told[1]) > 5000]


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_override_is_read_or_refused(seed: int) -> None:
    refused: list[str] = []
    for number in range(250):
        rng = random.Random(f"{seed} {number}")
        pieces = [rng.choice(PIECES) for _ in range(rng.randrange(1, 5))]
        text = b"".join((*pieces[:1], rng.choice((b"a=", b"a.b=", b"=", b"")), *pieces[1:]))
        try:
            parse_overrides([text.decode("utf-8", "surrogateescape")])
        except RecipeError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert not [told for told in refused if not told.startswith("override ") or len(told) > 500]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = " + b"[" * 100_000, "nests more than 32 levels deep"),
        (b"[t]\nx = " + b"[" * 33 + b"]" * 33, r"t\.x\.0\.0.*nests more than 32 levels deep, which no key takes"),
        (b"a = 1\nsteps = " + b"9" * 5000, r"the number at line 2 has too many digits: .* -2\^63 to 2\^63-1"),
        (b"[t]\nx = 0x" + b"f" * 5000, r"t\.x: an integer of 20000 bits; an integer is from"),
        (b"x = [1, 9223372036854775808]", r"x\.1: an integer of 64 bits"),
        (b"when = 2024-01-01", "when: a date or a time, which no key takes; write text in quotes"),
        (b"when = [07:32:00]", r"when\.0: a date or a time"),
        (b'x = "a\\u0000b"', "x: holds a NUL character"),
        (b'"a\\u0000b" = 1', r"a\\x00b: holds a NUL character"),
        (b"x = \0", "Invalid value"),
        (b"a = 1\na = 2", "Cannot overwrite a value"),
        ("a = 1".encode("utf-16"), r"is not UTF-8 text \(UTF-16\): save it as UTF-8"),
        (b"a = '\xe9'", r"is not UTF-8 text \(byte 0xe9 at 5\)"),
        (b"#" * (2**20 + 1), "is larger than 1 MiB"),
        (b"x" + b".x" * 400_000 + b" = 1", "the key at line 1 is more than 32 levels deep"),
        (b"\n['x'" + b" . 'x'" * 40 + b"]", "the key at line 2 is more than 32 levels deep"),
        (b"steps = nan", r"steps: Input should be a finite number \(got nan\)"),
        (b"learning_rate = inf", r"learning_rate: Input should be a finite number \(got inf\)"),
        (b'judge = "http://[key]@host#m"', r"\[key\] stands where a key stood"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"my\.toml: .*{words}"):
        validate_settings(Recipe, read_recipe(path), path.name)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfsteps = 5\r\n", b"steps = 5", b"steps=0x5"])
def test_what_editors_make_of_a_recipe_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    assert read_recipe(path) == {"steps": 5}


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", ".", "none.toml", "x" * 300, "my.toml/x"])
def test_what_is_no_file_is_refused_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("")
    with pytest.raises(RecipeError, match="no recipe|not a readable TOML file"):
        read_recipe(Path(place))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a=" + "[" * 50_000, "nests more than 32 levels"),
        ("a=" + "9" * 5000, "too many digits"),
        ("a.b=-9223372036854775809", r"a\.b: an integer of 64 bits"),
        ("a=[2024-01-01]", r"a\.0: a date or a time"),
        ("a=x\0y", "a: holds a NUL character"),
        ("a=\udcff", "a: is not UTF-8 text"),
        (".".join("a" * 9000) + "=1", "no key is more than 32 levels deep"),
        ("mix." + "9" * 5000 + ".x=1", "is not an index; here 0 to 1 are"),
    ],
)
def test_an_override_is_refused_in_a_line(tmp_path: Path, override: str, words: str) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(TOML)
    with pytest.raises(RecipeError, match=rf"override .*{words}") as caught:
        read_recipe(path, [override])
    assert len(str(caught.value)) < 400


def test_a_message_shows_no_key_and_ends() -> None:
    class Server(Section):
        api_key: int = 0
        url: int = 0

    with pytest.raises(RecipeError, match=r"api_key: .*got '\[key\]'.*\n.*url: .*http://\[key\]@h") as caught:
        validate_settings(Server, {"api_key": "hunter2", "url": "x" * 60 + "http://me:hunter2@h"}, "server")
    assert "hunter" not in str(caught.value)
    with pytest.raises(RecipeError, match="and 990 more faults$"):
        validate_settings(Server, {f"x{i}": i for i in range(1000)}, "server")
