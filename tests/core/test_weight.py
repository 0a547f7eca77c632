"""What envgym weighs: its dependencies, what importing it loads, and what works without any extra."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import envgym
import envgym_clusters
import envgym_environments
import envgym_sandboxes
import envgym_trainers
from envgym.errors import UserError
from envgym.optional_packages import EXTRAS, require

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = (envgym, envgym_clusters, envgym_environments, envgym_sandboxes, envgym_trainers)
UNWANTED = ("httpx", "jinja2", "pydantic", "rich", "tomli_w", "typer", *EXTRAS)


def test_the_core_has_at_most_eight_dependencies() -> None:
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert names == {"gymnasium", "httpx", "jinja2", "numpy", "pydantic", "rich", "tomli-w", "typer"}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extra_that_a_message_names_brings_the_module(module: str) -> None:
    extra = {canonicalize_name(Requirement(d).name) for d in PROJECT["optional-dependencies"][EXTRAS[module]]}
    providers = _distributions().get(module, [module])
    assert extra & {canonicalize_name(name) for name in providers}


def test_all_is_every_extra_but_the_weights_and_the_developers() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(line).extras == PROJECT["optional-dependencies"].keys() - {"all", "dev", "docs", "smollm"}


def test_every_entry_point_names_extras_that_exist() -> None:
    values = [v for group in PROJECT["entry-points"].values() for v in group.values()]
    named = {extra for value in values for extra in re.findall(r"\[(\w+)\]", value)}
    assert named
    assert named <= PROJECT["optional-dependencies"].keys()


def test_importing_envgym_loads_little() -> None:
    program = (
        "import sys, envgym\n"
        f"print([m for m in sys.modules if m.partition('.')[0] in {UNWANTED!r}])\n"
        "print(sorted(m for m in sys.modules if m.startswith('envgym')))\n"
    )
    loaded, ours = _python(sys.executable, program).stdout.splitlines()
    assert loaded == "[]"
    assert "verifiers" not in ours
    assert "math_equivalence" not in ours
    assert "chat_env" not in ours


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--kind", "policies"], ["eval", "--help"]])
def test_looking_around_loads_no_client_and_no_verifier(arguments: list[str]) -> None:
    program = (
        f"import sys; sys.argv = ['envgym', *{arguments}]\n"
        "from envgym.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([m for m in sys.modules if m in ('httpx', 'rich', 'torch', 'docker', 'envgym.env.chat_env') "
        "or m.startswith(('envgym.verifiers', 'envgym_')) and m.split('.')[1:2] not in ([], ['commands'])])"
    )
    assert _python(sys.executable, program).stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that holds envgym and its dependencies without any extra."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    for distribution in sorted(_required("envgym")):
        found = metadata.distribution(distribution)
        for name in {Path(path).parts[0] for path in found.files or ()} - {"..", "__pycache__"}:
            (site / name).symlink_to(str(found.locate_file(name)))
    for package in PACKAGES:
        (site / package.__name__).symlink_to(Path(package.__path__[0]))
    (info,) = (path for path in metadata.files("envgym") or () if path.name == "entry_points.txt")
    (site / "envgym-0.dist-info").symlink_to(Path(str(info.locate())).parent)
    return folder / "venv" / "bin" / "python"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("show", "math_problems"),
        ("rollout", "math_problems"),
        ("rollout", "refusal_safety", "--policy", "random"),
        ("eval", "--env", "math_problems", "--policy", "empty", "--limit", "3"),
        ("check", "refusal_safety", "--episodes", "1"),
    ],
)
def test_what_needs_no_extra_works_without_any(bare: Path, arguments: tuple[str, ...]) -> None:
    done = _envgym(bare, *arguments)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("rollout", "search_qa"), "search"),
        (("rollout", "search_qa", "--set", "retriever=embeddings"), "embeddings"),
        (("rollout", "proof_checker"), "logic"),
        (("rollout", "math_problems", "--set", "source=hf:gsm8k"), "datasets"),
        (("rollout", "code_sandbox", "--sandbox", "docker"), "docker"),
        (("rollout", "math_problems", "--policy", "builtin:tiny"), "train"),
        (("list", "--kind", "sandboxes"), "docker"),
        (("list", "--kind", "objectives", "--check"), "train"),
        (("sandbox", "doctor"), "docker"),
    ],
)
def test_what_needs_an_extra_says_which(bare: Path, arguments: tuple[str, ...], extra: str) -> None:
    done = _envgym(bare, *arguments)
    told = done.stdout + done.stderr
    assert f"pip install 'envgym[{extra}]'" in told, told
    assert "Traceback" not in told


def test_a_recipe_without_the_trainer_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[[mix]]\nenv = 'math_problems-v1'\n")
    done = _envgym(bare, "train", str(tmp_path / "r.toml"))
    assert done.returncode == 2
    assert "'rl' (envgym_trainers.stages.rl:ReinforcementStage of envgym) needs the module 'torch'" in done.stderr
    assert "pip install 'envgym[train]'" in done.stderr


def test_computer_algebra_that_is_missing_is_no_verdict_and_says_what_to_install(bare: Path) -> None:
    program = (
        "from envgym.verifiers import verify_math\n"
        r"verdict = verify_math(r'\sqrt{3+2\sqrt2}', r'1+\sqrt2', timeout=10)"
        "\n"
        "print(verdict.decided, verdict.reason)"
    )
    assert _python(str(bare), program).stdout == "False mpmath is not installed: pip install 'envgym[math]'\n"


def test_an_optional_package_is_imported_or_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require("numpy", "counting") is sys.modules["numpy"]
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"^model.lora_rank needs the package peft: pip install 'envgym\[lora\]'$"):
        require("peft", "model.lora_rank")


def _envgym(interpreter: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _python(str(interpreter), "from envgym.cli import main; main()", *arguments)


def _python(interpreter: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {} if interpreter != sys.executable else {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [interpreter, "-c", program, *arguments],
        env={**environment, **own},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _required(distribution: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return what a distribution requires without extras, and what that requires, by canonical name."""
    found: set[str] = set()
    for line in metadata.requires(distribution) or ():
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name in seen | found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found |= {name} | _required(name, seen | found | {name})
    return found
