"""The report in a real browser: it shows what models wrote, and none of it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from envgym.config import Section
from envgym.records import Message, Outcome, Score, Task, Trajectory, Turn
from envgym.runs.folder import RunFolder
from envgym.runs.report import render_report

RUNS = "document.title='owned';document.body.id='owned'"
PAYLOADS = (
    f"<script>{RUNS}</script>",
    f"</pre></details><script>{RUNS}</script>",
    f"<img src=x onerror={RUNS!r}>",
    f'"><svg onload="{RUNS}"><animate onbegin="{RUNS}" attributeName=x dur=1s>',
    f'<iframe srcdoc="<script>parent.{RUNS.split(";")[0]}</script>"></iframe>',
    f'</style></title><body onload="{RUNS}">',
    f"<noscript><p title='</noscript><img src=x onerror={RUNS}>'>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--><img src=x onerror={RUNS}>'>",
    '<meta http-equiv="refresh" content="0;url=about:blank">',
)
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
)


class Page(HTMLParser):
    """The tags, the ids and the text of what a browser made of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def opened(tmp_path: Path) -> Page:
    """A report whose every text is an attack, as Chromium shows it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("ENVGYM_REQUIRE_CHROMIUM") == "1":
            pytest.fail("Chromium is required here, and is not installed")
        pytest.skip("Chromium is not installed")
    folder = RunFolder.create(tmp_path / "run", Section(), seed=0)
    folder.append_metrics({"step": 1, **{f"reward/{text}": 1.0 for text in PAYLOADS}})
    folder.append_trajectories(1, [_played(text, i / 10) for i, text in enumerate(PAYLOADS)])
    report = render_report(folder)
    home = {**os.environ, "HOME": str(tmp_path)}
    options = [*_OPTIONS.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [chromium, *options, report.as_uri()], capture_output=True, text=True, timeout=120, check=True, env=home
    )
    return Page(done.stdout)


def _played(text: str, reward: float) -> Trajectory:
    action = Message(role="assistant", content=text)
    turn = Turn(messages=(Message(role="user", content=text),), action=action)
    return Trajectory(
        env=text,
        task=Task(id=text, split="train", messages=turn.messages),
        turns=[turn],
        outcome=Outcome.completed(),
        score=Score(value=reward, accuracy=reward),
    )


def test_nothing_that_a_model_wrote_runs_in_a_browser(opened: Page) -> None:
    assert opened.text.strip().startswith("run")
    assert "owned" not in opened.ids
    assert not {"script", "img", "iframe", "math", "noscript", "animate"} & opened.tags
    assert all(f"reward/{text}: 0 to 1" in opened.text for text in PAYLOADS)
