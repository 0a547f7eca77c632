"""The report renders whatever a run left, stands alone, and shows hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from envgym.config import Section
from envgym.records import Message, Outcome, Score, Task, ToolCall, Trajectory, Turn
from envgym.runs.folder import RunFolder
from envgym.runs.report import render_report
from envgym.runs.table import summary_table

ATTACK = '<script>alert("1")</script><img src=x onerror=alert(1)>'
INTERVAL = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4}
NONE = {"mean": None, "low": None, "high": None, "n": 0}


class Recipe(Section):
    note: str = ATTACK


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "<run>", Recipe(), seed=0)


def played(env: str, reward: float, text: str = "", failed: bool = False) -> Trajectory:
    call = ToolCall(name=text, arguments={text: text}, error=text or None)
    action = Message(role="assistant", content=text, tool_calls=(call, ToolCall(name="t", arguments={"a": text})))
    turn = Turn(messages=(Message(role="user", content=text),), action=action)
    task = Task(id=f"{text}{reward}", split="train", messages=turn.messages)
    return Trajectory(
        env=env,
        task=task,
        turns=[turn],
        outcome=Outcome.failed(ValueError(text)) if failed else Outcome.completed(),
        score=None if failed else Score(value=reward, accuracy=reward),
    )


class Tags(HTMLParser):
    """The tags of a page, and whether they are balanced."""

    VOID = frozenset({"meta", "polyline", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.stack: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def page(folder: RunFolder) -> str:
    html = render_report(folder).read_text(encoding="utf-8")
    tags = Tags(html)
    assert tags.stack == []
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & tags.names
    assert not [a for a in tags.attributes if a[0] in ("src", "href", "srcset") or a[0].startswith("on")]
    assert not re.search(r"url\(|@import|https?://", html)
    return html


def test_an_empty_run(folder: RunFolder) -> None:
    html = page(folder)
    for words in ("This run has not finished", "No step was recorded", "None were recorded", "&lt;script&gt;"):
        assert words in html


def test_an_unfinished_run(folder: RunFolder) -> None:
    for step in (1, 2):
        folder.append_metrics({"step": step, "reward/sums": step / 4, "loss": float("nan"), "grad_norm": 0.5})
        folder.append_trajectories(step, [played("sums", 1.0)])
    html = page(folder)
    assert "reward/sums: 0 to 1, steps 1–2" in html
    assert 'points="0.0,150.0 640.0,100.0"' in html
    assert "grad_norm" in html
    assert "loss:" not in html
    assert "nan" not in html.lower().replace("finance", "")


def test_a_finished_run(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1, "reward/sums": 1.0})
    folder.write_summary(summary())
    html = page(folder)
    for words in ("0.500 [0.250, 0.750]", "overall", "Left out: code", "&lt;b&gt;no sandbox", "Best: step 10"):
        assert words in html
    assert "has not finished" not in html


def test_rates_are_reported_apart(folder: RunFolder) -> None:
    row = {"after": INTERVAL, "parts": {"harm": {"before": NONE, "after": INTERVAL}}}
    folder.write_summary({"decodings": {"greedy": 0.0}, "environments": {"office": {"greedy": row}}})
    assert "<td>office</td><td>greedy</td><td>harm</td><td>-</td><td>0.500 [0.250, 0.750]</td>" in page(folder)


def test_a_finished_run_that_measured_no_gain(folder: RunFolder) -> None:
    """A supervised stage measures only after."""
    row = {"greedy": {"after": INTERVAL}}
    folder.write_summary({"decodings": {"greedy": 0.0}, "environments": {"sums": row}})
    assert "<td>-</td><td>0.500 [0.250, 0.750]</td><td>-</td>" in page(folder)


def test_hostile_text_is_shown_as_text(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1, f"reward/{ATTACK}": 1.0})
    folder.append_trajectories(1, [played(ATTACK, 1.0, ATTACK), played(ATTACK, 0.0, ATTACK, failed=True)])
    html = page(folder)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") > 10


def test_the_best_and_the_worst_are_shown_and_none_twice(folder: RunFolder) -> None:
    def shown(trajectories: list[Trajectory]) -> list[str]:
        (folder.path / "metrics.jsonl").unlink(missing_ok=True)
        folder.forget_after(0)
        folder.append_metrics({"step": 1})
        folder.append_trajectories(1, trajectories)
        return re.findall(r"<summary>sums · (\S+) · (?:completed|failed)", page(folder))

    assert shown([played("sums", 0.5)]) == ["0.5"]
    assert shown([played("sums", r) for r in (0.0, 1.0, 0.5)]) == ["1.0", "0.5", "0.0"]
    assert shown([played("sums", r / 8) for r in range(8)]) == ["0.875", "0.75", "0.0"]
    assert shown([played("sums", 9.0, failed=True), played("sums", 0.0)]) == ["0.0", "9.0"]


def test_the_table_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both decodings, what did not complete, what was left out, and what to doubt."""
    monkeypatch.setenv("COLUMNS", "160")
    assert summary_table(summary()).splitlines() == [
        "held-out reward  decoding  before                after                 gain                  n  "
        "not completed",
        "sums             greedy    0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  4  "
        "before 25% failed: SandboxError, 25% cut: tokens",
        "empty            greedy    -                     -                     -                     0",
        "overall          greedy    0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  4",
        "sums             sampled   0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  4",
        "empty            sampled   -                     -                     -                     0",
        "overall          sampled   0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  4",
        "greedy: temperature 0; sampled: temperature 0.7",
        "best: step 10, greedy 0.840, checkpoints/best",
        "left out: code: <b>no sandbox</b>",
        "warning: sums: something",
    ]


def summary() -> dict[str, Any]:
    row = {"before": INTERVAL, "after": INTERVAL, "gain": INTERVAL}
    ended = {
        "before": {"completed": 2, "truncated: tokens": 1, "failed: SandboxError": 1},
        "after": {"completed": 4},
    }
    empty = {"before": NONE, "after": NONE, "gain": NONE}
    return {
        "decodings": {"greedy": 0.0, "sampled": 0.7},
        "environments": {
            "sums": {"greedy": {**row, "ended": ended}, "sampled": row},
            "empty": {"greedy": empty, "sampled": empty},
        },
        "overall": {"greedy": row, "sampled": row},
        "best": {"step": 10, "reward": 0.84},
        "left_out": {"code": "<b>no sandbox</b>"},
        "warnings": ["sums: something"],
    }


PAYLOADS = (
    ATTACK,
    "</pre></details><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    '"><iframe srcdoc="<script>alert(1)</script>">',
    "' onmouseover='alert(1)",
    "<a href=javascript:alert(1)>x</a> [x](javascript:alert(1)) ![x](//evil/x.png)",
    '<meta http-equiv="refresh" content="0;url=data:text/html,<script>alert(1)</script>">',
    "<!--<script>-->",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}{{ self }}{% endraw %}{#",
    "<base href=//evil><link rel=stylesheet href=//evil><object data=//evil><embed src=//evil>",
    "\x00<scr\x00ipt>\u202e\x1b[2J\x85<\u2028script>",
    "&lt;script&gt;&#60;script&#62;",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_that_a_model_wrote_runs(folder: RunFolder, payload: str) -> None:
    """In any field of any record; the page has the tags of one without it, and shows it in words."""
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4, payload: payload}
    row = {"after": interval, "parts": {payload: {"after": interval}}, "ended": {payload: {payload: 1}}}
    plain, hostile = set(), set()
    for name, tags in (("x", plain), (payload, hostile)):
        folder.append_metrics({"step": 1, f"reward/{name}": 1.0})
        folder.append_trajectories(1, [played(name, 1.0, name), played(name, 0.0, name, failed=True)])
        folder.write_summary(
            {
                "decodings": {name: 0.0},
                "environments": {name: {name: row}},
                "left_out": {name: name},
                "warnings": [name],
            }
        )
        html = page(folder)
        assert folder.damage.lines() == []
        tags |= Tags(html).names
        assert not set(html) & set("\0\x1b\x85\u202e\u2028")
    assert hostile == plain
    assert "49" not in re.sub(r"sha256-\S+|\d{3,}", "", html) or "7 * 7" not in payload


def test_the_pages_own_policy_forbids_what_it_does_not_need(folder: RunFolder) -> None:
    """A browser then runs no script and loads nothing, even if an escape were forgotten."""
    html = page(folder)
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html)
    assert html.index("Content-Security-Policy") < html.index("<style>")
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_long_message_is_cut_and_says_so(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1})
    folder.append_trajectories(1, [played("sums", 1.0, "ab" * 50_000)])
    html = page(folder)
    assert html.count("characters more)") == 2
    assert len(html) < 300_000


def test_keys_and_unreadable_files_are_told_in_the_page(folder: RunFolder) -> None:
    (folder.path / "recipe.toml").write_text('judge = "ws://me:hunter2@host/v1?key=hunter2"\n')
    (folder.path / "versions.json").write_bytes(b"\xff")
    folder.append_metrics({"step": 1})
    folder.append_trajectories(1, [played("sums", 1.0, "ws://me:hunter2@host")])
    html = page(folder)
    assert "hunter2" not in html
    assert "ws://[key]@host/v1?key=[key]" in html
    assert "What could not be read" in html
    assert "versions.json was skipped: it is not UTF-8 text" in html
