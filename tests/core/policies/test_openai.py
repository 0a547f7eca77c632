"""A policy behind a real HTTP server on this machine: what it answers well, and everything it may answer badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from toys import Adder

from envgym.chat.tool_formats import MAX_CALLS
from envgym.errors import PolicyError, UserError
from envgym.policies.interface import Completion, ContextFull
from envgym.policies.openai import HttpPolicy
from envgym.records import Message, Trajectory, from_json, to_json
from envgym.rollout.episode import rollout

KEY = "sk-secret-0123456789"


@dataclass
class Server:
    """Answers each request with the next of ``answers``: a body or ``(status, body)``; text is sent as it is."""

    url: str = ""
    answers: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append({"path": self.path, **json.loads(body)})
            state.headers.append(dict(self.headers))
            answer = state.answers.pop(0)
            status, text = answer if isinstance(answer, tuple) else (200, answer)
            data = (text if isinstance(text, str) else json.dumps(text)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{listener.server_port}/v1"
        try:
            yield state
        finally:
            listener.shutdown()
            thread.join()


def choice(content: Any = "", calls: Any = None, reason: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **({} if calls is None else {"tool_calls": calls}), **more}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def native(name: Any, arguments: Any, call_id: Any = "abc") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def policy_of(server: Server, **options: Any) -> HttpPolicy:
    settings = {"model": "m", "temperature": 0.5, "max_tokens": 7, "pause": 0.01, **options}
    return HttpPolicy(url=server.url, **settings)


@pytest.fixture
def ask(server: Server) -> Callable[..., Any]:
    """``await ask(answer, …)``: the completion of a first turn."""

    async def once(*answers: Any, **options: Any) -> Completion:
        server.answers[:] = answers
        env, policy = Adder(), policy_of(server, **options)
        task = env.task_list("train")[0]
        observation, _ = await env.areset(options={"task": task})
        session = policy.open(observation.tools, 3)
        try:
            return await session.act(observation)
        finally:
            await session.close()
            await policy.close()

    return once


async def play(server: Server, *answers: Any) -> Trajectory:
    server.answers[:] = answers
    env, policy = Adder(), policy_of(server)
    try:
        return await rollout(env, policy, env.task_list("train")[0], name="sums", seed=1)
    finally:
        await policy.close()


async def test_a_conversation_with_tool_calls(server: Server) -> None:
    calls = [native("add", '{"a": 1, "b": 2}', "x"), native("add", '{"a": 5}', "y")]
    trajectory = await play(server, choice("", calls, "tool_calls"), choice("It is 7"))
    assert trajectory.outcome.kind == "completed"
    assert [t.action.content for t in trajectory.turns] == ["", "It is 7"]
    assert [m.content for m in trajectory.turns[1].messages] == ["3", "6"]
    first, second = server.requests
    assert first["path"] == "/v1/chat/completions"
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.5, 7)
    assert first["messages"] == [{"role": "user", "content": trajectory.task.messages[0].content}]
    assert {t["function"]["name"] for t in first["tools"]} == {"add", "sleep", "nap", "broken"}
    assert first["tools"][0]["function"]["parameters"]["required"] == ["a"]
    assert second["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [native("add", '{"a": 1, "b": 2}', "x"), native("add", '{"a": 5}', "y")],
        },
        {"role": "tool", "content": "3", "tool_call_id": "x"},
        {"role": "tool", "content": "6", "tool_call_id": "y"},
    ]
    assert first["seed"] != second["seed"]
    assert all(0 <= r["seed"] < 2**31 for r in server.requests)


async def test_calls_left_in_the_text_are_read_and_go_back_in_it(server: Server) -> None:
    """Many chat templates show an answer's text alone: as fields, the calls would vanish from the history."""
    text = 'Let me see. <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    trajectory = await play(server, choice(text), choice("2"))
    assert trajectory.turns[0].action.content == "Let me see."
    assert trajectory.turns[1].messages[0].content == "2"
    sent = server.requests[1]["messages"][1]
    assert sent == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "bad",
    [
        native("add", "{"),
        native("add", "[1]"),
        native("add", '{"a": NaN}'),
        native("add", '{"a": "\\ud800"}'),
        native("add", "[" * 100_000),
        native("add", 5),
        native(None, "{}"),
        native(["add"], "{}"),
        native("\ud800", "{}"),
        {"id": "abc", "function": None},
        {"id": "abc", "function": "add"},
        {"id": "abc"},
        {"id": {}, "function": {}},
        "add",
        None,
    ],
)
async def test_a_malformed_call_is_answered_and_the_server_gets_a_history_it_can_read(
    server: Server, bad: Any
) -> None:
    """The model's mistake is never missing data; every call sent back is well-formed and answered."""
    trajectory = await play(server, choice("", [bad]), choice("7"))
    assert not trajectory.failed, trajectory.outcome
    assert trajectory.turns[1].messages[0].content.startswith("error: ")
    assert trajectory.turns[0].metrics["tool_malformed"] == 1
    assistant, tool = server.requests[1]["messages"][1:]
    (sent,) = assistant["tool_calls"]
    assert sent["id"] == tool["tool_call_id"] != ""
    assert sent["function"]["name"].isidentifier()
    assert json.loads(sent["function"]["arguments"]) == {}
    assert from_json(Trajectory, to_json(trajectory)) == trajectory


async def test_arguments_may_come_as_an_object(ask: Callable[..., Any]) -> None:
    completion = await ask(choice("", [native("add", {"a": 1}), native("add", None), native("add", "")]))
    assert [c.arguments for c in completion.message.tool_calls] == [{"a": 1}, {}, {}]


async def test_calls_beyond_the_limit_are_dropped_with_a_reason(ask: Callable[..., Any]) -> None:
    calls = [native("add", "{}", str(i)) for i in range(1000)]
    message = (await ask(choice("", calls))).message
    assert len(message.tool_calls) == MAX_CALLS + 1
    assert "984 more were dropped" in message.tool_calls[-1].error


async def test_a_completion_that_ran_out_of_tokens_is_cut(ask: Callable[..., Any], server: Server) -> None:
    assert (await ask(choice("I am thinki", reason="length"))).message == Message(
        role="assistant", content="I am thinki", cut=True
    )
    trajectory = await play(server, choice("I am thinki", reason="length"))
    assert trajectory.outcome.reason == "tokens"


async def test_an_answer_without_words_is_an_empty_one(ask: Callable[..., Any]) -> None:
    assert (await ask(choice(None, role="system"))).message == Message(role="assistant", content="")


async def test_half_a_surrogate_pair_is_replaced(ask: Callable[..., Any]) -> None:
    assert (await ask('{"choices":[{"message":{"content":"a\\ud800"}}]}')).message.content == "a?"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_pass_is_tried_again(ask: Callable[..., Any], server: Server, status: int) -> None:
    assert (await ask((status, "busy"), (status, "busy"), choice("7"))).message.content == "7"
    assert len(server.requests) == 3
    assert server.requests[0] == server.requests[2]


async def test_what_does_not_pass_ends_after_six_attempts(ask: Callable[..., Any], server: Server) -> None:
    with pytest.raises(PolicyError, match=r"no completion from http://127\.0\.0\.1.*HTTP 500: busy"):
        await ask(*[(500, "busy")] * 6)
    assert len(server.requests) == 6


async def test_a_refusal_is_not_tried_again(ask: Callable[..., Any], server: Server) -> None:
    with pytest.raises(PolicyError, match="HTTP 400: no such model"):
        await ask((400, "no such model"))
    assert len(server.requests) == 1
    assert (await play(server, (400, "no such model"))).outcome.reason.startswith("PolicyError: no completion")


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000",
        '{"error": {"code": "context_length_exceeded"}}',
        "the request exceeds the available context size",
    ],
)
async def test_a_full_context_truncates(ask: Callable[..., Any], server: Server, words: str) -> None:
    with pytest.raises(ContextFull):
        await ask((400, "x" * 1000 + words))
    assert (await play(server, (400, words))).outcome.reason == "context"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{}]}',
        '{"choices": [{"message": 1}]}',
        "[" * 10**5,
    ],
)
async def test_an_answer_that_is_no_completion_is_a_policy_error(ask: Callable[..., Any], answer: str) -> None:
    with pytest.raises(PolicyError, match="no completion from"):
        await ask(*[answer] * 6)


async def test_the_key_is_sent_and_appears_in_no_error(
    ask: Callable[..., Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the server repeats it, or where it ends in a line break, as a key from a file does."""
    monkeypatch.setenv("ENVGYM_API_KEY", KEY + "\n")
    with pytest.raises(PolicyError) as caught:
        await ask((401, f"wrong key: Bearer {KEY}"))
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert "wrong key: Bearer [key]" in str(caught.value)
    monkeypatch.setenv("ENVGYM_API_KEY", "geheim\u00fc")
    with pytest.raises(UserError, match="ENVGYM_API_KEY holds") as refused:
        policy_of(server)
    assert "geheim" not in str(refused.value)


async def test_without_a_key_none_is_sent(
    ask: Callable[..., Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENVGYM_API_KEY", raising=False)
    await ask(choice("7"))
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("url", ["http://", "ftp://x/v1", "http://x:y/v1", "x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="address"):
        HttpPolicy(url=url, model="m", temperature=1, max_tokens=1)
