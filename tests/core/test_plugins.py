"""Plugins are found by name without being imported, and what cannot be found is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import pytest
from toys import Adder

from envgym import list_envs, make, register
from envgym.env.chat_env import ChatEnv
from envgym.env.registration import environments, register_in_gymnasium
from envgym.errors import PluginError, UnknownNameError, UserError
from envgym.plugins.registry import Registry, short_name
from envgym.sandbox.selection import sandboxes


@pytest.fixture
def scratch() -> Iterator[None]:
    """Forget what a test registers."""
    kept = dict(environments._registered)
    yield
    for name in environments._registered.keys() - kept.keys():
        gymnasium.registry.pop(f"envgym/{name}", None)
    environments._registered.clear()
    environments._registered.update(kept)


@pytest.mark.parametrize("name", ["toys:Adder", "adder-v1", "adder", "envgym/adder-v1", "envgym/adder"])
def test_an_environment_is_made_by_path_by_id_and_without_its_version(name: str, scratch: None) -> None:
    register("adder-v1", "toys:Adder")
    made = make(name, split="held_out", max_turns=3)
    assert type(made) is Adder
    assert (made.split, made.config.max_turns) == ("held_out", 3)
    assert "adder-v1" in list_envs()


def test_without_a_version_the_newest_wins(scratch: None) -> None:
    for version, kind in ((2, "ManyTools"), (10, "Adder"), (9, "ManyTools")):
        register(f"many-v{version}", f"toys:{kind}")
    assert type(make("many")) is Adder


def test_registering_makes_it_known_to_gymnasium(scratch: None) -> None:
    register("envgym/sums-v3", "toys:Adder")
    made = gymnasium.make("envgym/sums-v3", numbers=12)
    assert isinstance(made.unwrapped, Adder)
    assert made.unwrapped.config.numbers == 12
    observation, info = made.reset(seed=1)
    assert observation in made.observation_space
    assert info["task_id"]
    made.close()


def test_registering_twice_is_refused_unless_it_is_the_same(scratch: None) -> None:
    register("sums-v1", "toys:Adder")
    register("sums-v1", "toys:Adder")
    with pytest.raises(UserError, match=r"offered twice.*\(toys:Adder\).*\(toys:ManyTools\)"):
        register("sums-v1", "toys:ManyTools")
    with pytest.raises(UserError, match="offered twice: by envgym"):
        register("math_problems-v1", "toys:Adder")


@pytest.mark.parametrize("name", ["sums", "sums-v", "sums-vx", "my sums-v1", "-v1", "a/b-v1", ""])
def test_an_id_without_a_version_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"end in a version, e.g. 'riddles-v1'"):
        register(name, "toys:Adder")


@pytest.mark.parametrize("path", ["toys", "toys:", ":Adder", "toys.Adder", "toys:Adder()", "../toys:Adder"])
def test_a_malformed_entry_point_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"must read 'package.module:Class'"):
        register("x-v1", path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("math_problem", "unknown environment 'math_problem'; did you mean 'math_problems-v1'"),
        ("math_problems-v99", "did you mean 'math_problems-v1'"),
        ("", "allowed: code_sandbox-v1.*through the entry-point group 'envgym.environments'"),
        ("toys:Addr", "unknown name in toys: 'Addr'; did you mean 'Adder'"),
        ("tois:Adder", "'tois:Adder' needs the module 'tois', which was not found; check the spelling"),
        ("toys.inner:Adder", "needs the module 'toys.inner', which was not found; check the spelling"),
        (
            "json:dumps",
            r"json:dumps \(.*\) is not an environment: it must subclass envgym.env.chat_env:ChatEnv",
        ),
        ("envgym.policies.scripted:Expert", "is not an environment"),
        ("a b:C", "must read 'package.module:Class'"),
        (".toys:Adder", "must read 'package.module:Class'"),
    ],
)
def test_what_cannot_be_made_is_explained(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(name)


def test_a_plugin_whose_dependency_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy.py").write_text("import no_such_package.inner")
    (tmp_path / "stale.py").write_text("from json import no_such_name")
    (tmp_path / "buggy.py").write_text("import json; json.no_such_name")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"needs the module 'no_such_package'.*pip install no_such_package"):
        make("needy:Env")
    with pytest.raises(
        UserError,
        match="'stale:Env' cannot be imported: .*ImportError: cannot import name",
    ):
        make("stale:Env")
    with pytest.raises(PluginError, match="'buggy:Env' cannot be imported: .*AttributeError: .*no_such_name"):
        make("buggy:Env")


def test_installed_plugins_are_found(install: Callable[[str, str], None]) -> None:
    install("riddles", "[envgym.environments]\nriddles-v1 = toys:Adder\n")
    plugin = environments.find("riddles")
    assert (plugin.distribution, plugin.entry_point) == ("riddles", "toys:Adder")
    assert issubclass(plugin.load(), ChatEnv)


def test_a_duplicate_names_both_distributions_and_importing_survives_it(
    install: Callable[[str, str], None],
) -> None:
    install("riddles", "[envgym.environments]\nriddles-v1 = toys:Adder\n")
    install("puzzles", "[envgym.environments]\nriddles-v1 = toys:ManyTools\n")
    assert {"riddles-v1", "math_problems-v1"} <= set(list_envs())
    make("math_problems-v1").close()
    with pytest.raises(PluginError) as caught:
        make("riddles-v1")
    for part in ("'riddles-v1' is offered twice", "riddles (toys:Adder)", "puzzles (toys:ManyTools)", "uninstall"):
        assert part in str(caught.value)
    register_in_gymnasium()


def test_the_same_entry_point_found_twice_is_no_conflict(install: Callable[[str, str], None]) -> None:
    install("riddles", "[envgym.environments]\nriddles-v1 = toys:Adder\n")
    install("riddles_editable", "[envgym.environments]\nriddles-v1 = toys:Adder\n")
    assert "riddles-v1" in list_envs()


def test_every_kind_of_plugin_is_found_the_same_way() -> None:
    assert {"docker", "bubblewrap", "unsafe_local"} <= set(sandboxes.plugins())
    with pytest.raises(UnknownNameError, match="unknown sandbox 'dcoker'; did you mean 'docker'"):
        sandboxes.find("dcoker")
    with pytest.raises(UnknownNameError, match="allowed: nothing is installed"):
        Registry("toy", "no.such.group", "toys:Adder").find("x")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("math_problems-v1", "math_problems"),
        ("envgym/math_problems-v12", "math_problems"),
        ("math_problems", "math_problems"),
        ("a.very-video:Env", "Env"),
        ("pick-v", "pick-v"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short
