"""Servers that a Ray places: started anew where they listened, ended with their holders, and trained against."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from envgym.env.services import Services
from envgym.errors import UserError
from envgym.rollout.cluster import ServerProgram
from envgym.testing import InProcessCluster
from envgym_clusters.ray import RayCluster, leash
from envgym_trainers.engine.interface import EngineChoice
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model

SERVER = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.getpid()} {child.pid} {os.environ.get('WORD')}".encode())
    def log_message(self, *_): pass
child = subprocess.Popen(["sleep", "1000"])
http.server.HTTPServer(("{host}", int("{port}")), Handler).serve_forever()
"""


@pytest.fixture
async def cluster(ray_address: str) -> AsyncIterator[RayCluster]:
    made = RayCluster(workers=1, address=ray_address)
    services = Services()
    await made.open(services)
    yield made
    await made.close()
    await services.close()


def _program(code: str = SERVER, **settings: Any) -> ServerProgram:
    return ServerProgram(command=(sys.executable, "-c", code), **{"gpus": 0, "start_seconds": 60.0, **settings})


def _asked(address: str) -> tuple[int, int, str]:
    """Return the server's process, that of its child, and its variable."""
    with urllib.request.urlopen(f"{address}/v1/models", timeout=10) as answer:
        own, child, word = answer.read().decode().split()
    return int(own), int(child), word


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.05)


def _is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _is_another(address: str, pid: int) -> bool:
    try:
        return _asked(address)[0] != pid
    except OSError:
        return False


async def test_servers_start_with_their_settings_and_end_with_the_cluster(cluster: RayCluster) -> None:
    addresses = await cluster.serve(_program(count=2, environment={"WORD": "spoken"}))
    found = [_asked(address) for address in addresses]
    assert len(set(addresses)) == 2
    assert [word for _, _, word in found] == ["spoken", "spoken"]
    await cluster.close()
    await _until(lambda: not any(_is_there(pid) for own, child, _ in found for pid in (own, child)))


async def test_a_server_that_is_killed_is_started_anew_at_its_address(cluster: RayCluster) -> None:
    """What the dead one had started ends with it."""
    (address,) = await cluster.serve(_program())
    own, child, _ = _asked(address)
    os.kill(own, signal.SIGKILL)
    await _until(lambda: _is_another(address, own))
    await _until(lambda: not _is_there(child))
    assert [server.restarts for server in cluster.servers] == [1]


async def test_a_server_whose_holder_is_killed_ends_and_is_started_anew_at_its_address(
    cluster: RayCluster,
) -> None:
    (address,) = await cluster.serve(_program())
    own, child, _ = _asked(address)
    leash = _parent(own)
    os.kill(_parent(leash), signal.SIGKILL)
    await _until(lambda: not _is_there(own) and not _is_there(child) and not _is_there(leash))
    await _until(lambda: _is_another(address, own))


def test_a_leash_keeps_the_end_of_what_is_said_and_the_exit_code(tmp_path: Path) -> None:
    """Ten megabytes are said; no more than two are kept, the last words among them."""
    code = "for n in range(160): print(str(n % 10) * 65536)\nprint('last words'); exit(7)"
    log = tmp_path / "log"
    with log.open("ab") as file:
        command = [sys.executable, str(leash.__file__), sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as run:
            assert run.wait(60) == 7
    assert log.read_bytes().endswith(b"last words\n")
    assert log.stat().st_size < 2 * 2**20


def _parent(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


@pytest.mark.parametrize(
    ("code", "settings", "said"),
    [
        ("print('no such model'); exit(3) # {port}", {}, r"exit code 3; it said: no such model"),
        ("import time; time.sleep(100) # {port}", {"start_seconds": 1.0}, r"does not answer at .* after 1 s"),
        (
            SERVER,
            {"gpus": 4.0, "start_seconds": 1.0},
            r"0 of 1 servers started within 1 s; Ray has 0 GPUs, and each",
        ),
    ],
    ids=["ends", "never answers", "no gpu"],
)
async def test_a_server_that_cannot_start_says_why(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, code: str, settings: dict[str, Any], said: str
) -> None:
    if "gpus" in settings:
        monkeypatch.setattr("envgym_clusters.ray._PLACING_SECONDS", 3.0)
    with pytest.raises(UserError, match=said):
        await cluster.serve(_program(code, **settings))


async def test_a_cluster_that_starts_no_servers_says_so() -> None:
    with pytest.raises(UserError, match="InProcessCluster starts no servers"):
        await InProcessCluster().serve(_program())


RECIPE = """
steps = 2
groups = 2
group_size = 4
[cluster]
name = "ray"
workers = 1
[engine]
name = "vllm"
[engine.servers]
command = [{python}, {program}, "{{port}}"]
count = 2
gpus = 0
[[mix]]
env = "math_problems-v1"
[model]
path = "builtin:tiny"
context = 320
[reward]
control = "random"
[sampling]
max_tokens = 16
[evaluate]
tasks = 2
"""


def test_a_recipe_trains_against_servers_that_its_cluster_starts(tmp_path: Path) -> None:
    """Both take part and get every step's weights; none is left."""
    program = str(Path(__file__).with_name("small_vllm.py"))
    recipe = RECIPE.format(python=json.dumps(sys.executable), program=json.dumps(program))
    (tmp_path / "r.toml").write_text(recipe)
    command = [sys.executable, "-c", "from envgym.cli import main; main()", "train", "r.toml", "--out", "run"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["engine_gap_max"] < 1e-4 for row in rows] == [True, True]
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if program.encode() in _text(path)]


async def test_servers_need_a_cluster_and_no_addresses() -> None:
    servers = {"command": ["serve", "{port}"]}
    with pytest.raises(UserError, match="engine.servers are started on a cluster: name one"):
        await EngineChoice(name="vllm", servers=servers).placed(None)
    with pytest.raises(UserError, match="name urls here"):
        EngineChoice(name="vllm", servers=servers).make(language_model=_model(), concurrency=1)
    with pytest.raises(UserError, match="urls and servers exclude each other"):
        EngineChoice(name="vllm", servers=servers, urls=["http://127.0.0.1:1"])
    with pytest.raises(UserError, match=r"names no \{port\}"):
        EngineChoice(name="vllm", servers={"command": ["serve"]})


def _model() -> LanguageModel:
    return load_model(ModelConfig(path="builtin:tiny", context=320))


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
