"""``envgym engine doctor`` says what a server lacks, with the flag, and by its exit code whether it will do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from envgym.cli import app
from envgym_trainers.engine.server.labels import Labels
from envgym_trainers.testing.servers import ModelServer, VllmServer
from envgym_trainers.testing.servers.serving import HttpReply

Look = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


def examine(url: str, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and the rows by what they are about."""
    done = CliRunner().invoke(app, ["engine", "doctor", url, "--json", *words])
    assert done.exit_code in (0, 1), done.output
    return done.exit_code, {row["what"]: row for row in json.loads(done.stdout)}


def test_a_server_that_was_started_for_training_will_do(dialect: str, server: ModelServer) -> None:
    code, rows = examine(server.url)
    assert code == 0
    assert [row for row in rows.values() if not row["works"]] == []
    assert rows["server"]["found"].startswith(dialect)
    assert rows["context"]["found"] == "128 tokens"


def test_nothing_is_changed(dialect: str, server: ModelServer) -> None:
    examine(server.url)
    assert (server.label, server.paused, server.asleep, server.names) == ("default", False, False, ["served"])
    steering = ("pause", "update", "load", "sleep", "reset", "flush")
    assert not [path for path, body in server.seen if body is not None and any(w in path for w in steering)]


def test_the_table_is_for_people(vllm: VllmServer) -> None:
    done = CliRunner().invoke(app, ["engine", "doctor", vllm.url])
    assert done.exit_code == 0
    assert "ok  server        vllm 0.32.0" in done.stdout.splitlines()


def _shut(*paths: str) -> Callable[[str, Any], HttpReply | None]:
    return lambda asked, body: HttpReply({"detail": "Not Found"}, 404) if asked in paths else None


@pytest.mark.parametrize(
    ("closed", "what", "remedy"),
    [
        (("/weight_info",), "state", "VLLM_SERVER_DEV_MODE=1"),
        (("/inference/v1/generate",), "tokens", "--enable-scale-out"),
        (("/update_weights", "/v1/load_lora_adapter"), "all weights", "VLLM_SERVER_DEV_MODE=1"),
    ],
)
def test_what_is_shut_is_named_with_the_flag_that_opens_it(
    vllm: VllmServer, closed: tuple[str, ...], what: str, remedy: str
) -> None:
    vllm.intercept = _shut(*closed)
    code, rows = examine(vllm.url)
    assert code == 1
    assert remedy in rows[what]["remedy"]
    assert not rows[what]["works"]


def test_one_way_for_weights_is_enough(vllm: VllmServer) -> None:
    """A server with another transfer takes adapters; one without either takes nothing."""
    vllm.config["weight_transfer_config"] = {"backend": "nccl"}
    code, rows = examine(vllm.url)
    assert code == 0
    assert "envgym_disk" in rows["all weights"]["remedy"]
    vllm.config["lora_config"] = None
    code, rows = examine(vllm.url)
    assert code == 1
    assert "--enable-lora" in rows["adapters"]["remedy"]


def test_log_probs_before_temperature_are_found_out(vllm: VllmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = vllm.sample

    def raw(ids: list[int], *, temperature: float, **values: Any) -> Any:
        made = sample(ids, temperature=temperature, **values)
        table = torch.log_softmax(vllm._base(input_ids=torch.tensor([ids])).logits[0, -1], dim=-1)
        made.logprobs = [float(table[token]) for token in made.ids]
        return made

    monkeypatch.setattr(vllm, "sample", raw)
    code, rows = examine(vllm.url)
    assert code == 1
    assert "processed_logprobs" in rows["log-probs"]["remedy"]


def test_who_waits_or_belongs_to_another_is_told(vllm: VllmServer) -> None:
    vllm.asleep = True
    code, rows = examine(vllm.url)
    assert (code, rows["awake"]["found"], rows["awake"]["remedy"]) == (1, "asleep", "POST /wake_up")
    vllm.asleep, vllm.paused = False, True
    assert examine(vllm.url)[1]["awake"]["found"] == "paused"
    vllm.paused, vllm.label = False, Labels().of(3)
    code, rows = examine(vllm.url)
    assert code == 1
    assert "take_over" in rows["weights"]["remedy"]


def test_a_key_that_is_wanted_is_asked_for_by_the_name_of_its_variable(
    vllm: VllmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVERS_KEY", "sesame-opens-it")
    assert examine(vllm.url, "--key-env", "SERVERS_KEY")[0] == 0
    assert vllm.authorizations == {"Bearer sesame-opens-it"}
    vllm.intercept = lambda path, body: HttpReply({"error": "Unauthorized"}, 401)
    code, rows = examine(vllm.url, "--key-env", "OTHER_KEY")
    assert code == 1
    assert "OTHER_KEY" in rows["key"]["remedy"]


def test_what_is_no_server_for_training_is_told_from_none(vllm: VllmServer) -> None:
    vllm.intercept = lambda path, body: None if path == "/v1/models" else HttpReply({"detail": "Not Found"}, 404)
    code, rows = examine(vllm.url)
    assert code == 1
    assert "may play and judge, not train" in rows["server"]["found"]
    code, rows = examine("http://127.0.0.1:9")
    assert code == 1
    assert "start it" in rows["server"]["remedy"]


def test_what_is_no_address_is_a_mistake_of_the_user() -> None:
    done = CliRunner().invoke(app, ["engine", "doctor", "nonsense"])
    assert done.exception is not None
    assert "http://HOST:PORT" in str(done.exception)
