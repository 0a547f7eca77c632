"""The README and the pages: each file they print runs, each command they show is accepted, each name exists.

A fenced block whose first line names a file (``# name.py``, or the command that runs a recipe) is that file.
"""

from __future__ import annotations

import ast
import json
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from envgym.chat.tool_formats import tool_formats
from envgym.cli import app
from envgym.cli.commands import GROUP
from envgym.env.registration import environments
from envgym.plugins.registry import Registry
from envgym.policies.interface import policies
from envgym.records import Message, ToolCall
from envgym.runs.stage import stages
from envgym.sandbox.selection import sandboxes

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "examples" / "third_party_plugin"
PAGES = sorted((ROOT / "docs" / "environments").glob("*.md"))
DOCUMENTS = (*sorted(ROOT.glob("*.md")), PLUGIN / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"# (?:.*\btrain )?([\w/]+\.(?:py|toml))\b")
DOTTED = re.compile(r"`(envgym(?:_\w+)?(?:\.\w+)+)`")
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")
ENVIRONMENTS = {
    "warehouse-v1": "warehouse:Warehouse",
    "reversal-v1": "reversal:Reversal",
    "basket-v1": "basket:Basket",
    "guess-v1": "guess:Guess",
    "ledger-v1": "envgym_ledger.ledger:Ledger",
}
PLUGINS = (
    ("sandbox", sandboxes, "gvisor:GVisorBackend"),
    ("policy", policies, "parrot:Parrot"),
    ("tool_format", tool_formats, "llama_json:LlamaFormat"),
    ("stage", stages, "count_tasks:CountTasks"),
)
BRIEF = ("evaluate.tasks=2", "sampling.max_tokens=16")
ONE_STEP = ("steps=1", "groups=2", "group_size=2", *BRIEF)


def blocks(language: str) -> list[str]:
    return [body for page in DOCUMENTS for kind, body in BLOCK.findall(_text(page)) if kind == language]


def printed_files() -> dict[str, str]:
    """Every file that a document prints, by name."""
    found = [(NAME.match(body), body) for body in blocks("python") + blocks("toml")]
    named = [(match[1], body) for match, body in found if match]
    assert len({name for name, _ in named}) == len(named), "two blocks claim the same file"
    return dict(named)


def console_lines() -> list[str]:
    return [line[2:] for body in blocks("console") for line in body.splitlines() if line.startswith("$ ")]


def documented_groups() -> set[str]:
    return set(re.findall(r"^\| [a-z ]+ \| .+? \| `(envgym\.\w+)` \|", _read("docs/plugins.md"), re.MULTILINE))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every printed file, which is the working directory and can be imported from."""
    for name, text in printed_files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def overrides(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


def test_the_readme_is_short_and_so_is_its_environment() -> None:
    assert len(_read("README.md").split()) <= 900
    printed = printed_files()["reversal.py"]
    assert len(printed.splitlines()) <= 25
    assert _read("examples/reversal.py").endswith(printed.removeprefix("# reversal.py\n"))


def test_every_block_can_be_read() -> None:
    """Fragments as well: Python compiles, with ``await`` at the top, and TOML parses."""
    programs, tables = list(blocks("python")), list(blocks("toml"))
    for body in programs:
        compile(body, "a page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert all(tomllib.loads(body) for body in tables)
    assert min(len(programs), len(tables)) > 5


def test_every_module_and_class_named_exists() -> None:
    pages = [document for document in DOCUMENTS if document.name != "CHANGELOG.md"]
    named = {name for page in pages for name in DOTTED.findall(_text(page))} - documented_groups() - {GROUP}
    assert len(named) > 30
    missing = [name for name in sorted(named) if not _exists(name)]
    assert not missing


def test_every_kind_of_plugin_is_on_its_page() -> None:
    groups = tomllib.loads(_read("pyproject.toml"))["project"]["entry-points"]
    assert set(groups) <= documented_groups() | {GROUP, "vllm.general_plugins"}


@pytest.mark.parametrize("env", [path for path in ENVIRONMENTS.values() if "." not in path])
def test_the_printed_environments_tell_an_expert_from_silence(folder: Path, env: str) -> None:
    for policy, reward in (("gold", 1.0), ("empty", 0.0)):
        scores = json.loads(run("eval", "--env", env, "--policy", policy, "--limit", "10", "--json"))
        (record,) = scores["environments"].values()
        assert record["reward"]["mean"] == reward
        assert record["failed_episodes"] == 0


def test_the_printed_environments_and_the_example_plugin_meet_the_contract(folder: Path) -> None:
    calls = "\n".join(f"register({name!r}, {path!r})" for name, path in ENVIRONMENTS.items())
    (folder / "register_examples.py").write_text(f"from envgym import register\n\n{calls}\n", encoding="utf-8")
    path = os.pathsep.join([str(folder), str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    chosen = " or ".join(ENVIRONMENTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "register_examples"]
    command += ["tests/contracts/test_environments.py", "-k", chosen]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_the_page_on_training_trains_on_its_own_environment(folder: Path) -> None:
    run("train", "start.toml", "--out", "runs/start", *overrides("examples=4", "batch_size=4", *BRIEF))
    run("train", "warehouse.toml", "--out", "runs/warehouse", *overrides(*ONE_STEP))
    summary = json.loads((folder / "runs" / "warehouse" / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 1
    assert summary["environments"]["Warehouse"]["greedy"]["gain"]["n"] == 2


def test_the_printed_objective_trains(folder: Path) -> None:
    run("train", "leave_one_out.toml", "--out", "runs/leave_one_out", *overrides(*ONE_STEP))
    assert (folder / "runs" / "leave_one_out" / "summary.json").is_file()


@pytest.mark.parametrize(("kind", "registry", "path"), PLUGINS, ids=[kind for kind, _, _ in PLUGINS])
def test_the_printed_plugins_meet_the_interface(
    folder: Path, kind: str, registry: Registry[Any], path: str
) -> None:
    assert registry.load(path).contract == 1
    registry.validate(path, {})


def test_the_printed_policy_and_stage_run(folder: Path) -> None:
    scores = json.loads(
        run("eval", "--env", "math_problems", "--policy", "parrot:Parrot", "--limit", "3", "--json")
    )
    assert scores["environments"]["math_problems"]["reward"]["mean"] == 0
    run("train", "count.toml", "--out", "runs/count")
    assert (folder / "runs" / "count" / "report.html").is_file()


def test_the_printed_tool_format_reads_what_it_writes(folder: Path) -> None:
    call = ToolCall(name="look", arguments={"where": "here"}, id="call_0")
    message = Message(role="assistant", content="", tool_calls=(call,))
    form = tool_formats.make("llama_json:LlamaFormat")
    assert form.parse(form.render(message)) == message
    assert form.parse("look here").content == "look here"


def test_the_printed_episode_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path("one_episode.py")
    assert "'correct': 0.0" in capsys.readouterr().out


def test_every_command_shown_is_accepted() -> None:
    """Options and arguments are parsed by the command itself; recipes, targets and tests must exist."""
    printed = printed_files()
    group = typer.main.get_command(app)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in console_lines():
        words = [w for w in shlex.split(line.partition(" > ")[0]) if not re.fullmatch(r"[A-Z_]+=\S*", w)]
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), line
        elif words[0] == "envgym":
            command = group.get_command(None, words[1])  # type: ignore[attr-defined]
            command.make_context(words[1], words[2:])
            recipes = [w for w in words[2:] if w.endswith(".toml")]
            assert all(r in printed or (ROOT / r).is_file() for r in recipes), line
        elif "pytest" in words:
            paths = [w for w in words[words.index("pytest") + 1 :] if "/" in w]
            assert all((ROOT / p).exists() for p in paths), line


def test_every_shipped_environment_has_a_page() -> None:
    plugins = environments.plugins().values()
    own = {p.name.rpartition("-v")[0] for p in plugins if p.entry_point.startswith("envgym_environments.")}
    assert {page.stem for page in PAGES} == own


@pytest.mark.docker
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_episode_on_a_page_is_what_its_command_prints(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (command,) = [body[2:].strip() for kind, body in BLOCK.findall(text) if kind == "console"]
    (printed,) = [body for kind, body in BLOCK.findall(text) if kind == "text"]
    assert command.startswith(f"envgym rollout {page.stem} ")
    played = CliRunner().invoke(app, shlex.split(command)[1:])
    assert played.exit_code == 0, played.output
    assert played.stdout == printed


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in LINK.findall(_text(document)):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = _read("mkdocs.yml")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f" {page.relative_to(ROOT / 'docs').as_posix()}\n" in navigation, page


def _text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def _read(name: str) -> str:
    return _text(ROOT / name)


def _exists(dotted: str) -> bool:
    """Look a module up, or something in one."""
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True
