"""``search_qa`` over files and over a remote retriever."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envgym.env.answers import call, script
from envgym.env.services import Services
from envgym.env.shared_tools import ToolSettings
from envgym.errors import DataError
from envgym.policies.scripted import Script
from envgym.records import OutcomeKind, Task, Trajectory
from envgym.rollout.collector import Collector
from envgym.rollout.episode import rollout
from envgym.rollout.mix import MixEntry
from envgym_environments.search_qa import SearchQA

PLACES = ("Aba", "Beb", "Cic", "Dod", "Eke", "Fuf", "Gag", "Heh", "Ici", "Jaj")


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A corpus of ten places and a question about each."""
    corpus = [{"id": i, "title": p, "text": f"{p} lies in {p}land. " + "x " * 300} for i, p in enumerate(PLACES)]
    questions = [{"question": f"Where does {p} lie?", "answers": [f"{p}land", f"in {p}land"]} for p in PLACES]
    return {
        "corpus_file": write(tmp_path / "corpus.jsonl", corpus),
        "question_file": write(tmp_path / "train.jsonl", questions[:6]),
        "held_out_file": write(tmp_path / "held_out.jsonl", questions[6:]),
    }


def test_a_corpus_and_questions_from_files(files: dict[str, str], play: Any) -> None:
    env = SearchQA(**files)
    assert [t.reference["answers"][0] for t in env.task_list("held_out")] == [f"{p}land" for p in PLACES[6:]]
    assert len(env.task_list("train")) == 6
    trajectory = play(
        env,
        env.task_list("train")[1],
        ("search", {"query": "beb"}),
        ("open_document", {"title": "BEB"}),
        "<answer>Bebland</answer>",
    )
    snippet, document = (turn.messages[0].content for turn in trajectory.turns[1:])
    assert snippet.startswith("Beb: Beb lies in Bebland. x x")
    assert snippet.endswith(" ...")
    assert len(snippet) < 320 < len(document)
    assert trajectory.score.value == 1


def test_a_corpus_that_changes_is_read_again(files: dict[str, str], tmp_path: Path) -> None:
    env = SearchQA(**files)
    assert env._index().by_title("Aba")
    time.sleep(0.01)
    write(tmp_path / "corpus.jsonl", [{"id": 1, "title": "New", "text": "words"}])
    assert env._index().by_title("New")


@pytest.mark.parametrize(
    ("file", "row", "fault"),
    [
        (
            "corpus_file",
            {"id": 3, "title": "Again", "text": "words"},
            r"corpus\.jsonl, row 11: the id '3' is",
        ),
        ("corpus_file", {"id": 11, "title": "", "text": "words"}, r"corpus\.jsonl, row 11: column 'title'"),
        ("corpus_file", {"id": 11, "title": "A"}, r"corpus\.jsonl, row 11: no column 'text'"),
        ("question_file", {"question": "Who?"}, r"train\.jsonl, row 7: no column 'answers'"),
        ("question_file", {"question": "Who?", "answers": []}, r"train\.jsonl, row 7: .* empty list"),
        ("question_file", {"question": "Who?", "answers": ["a", None]}, r"row 7: column 'answers'"),
        (
            "question_file",
            {"question": "Where does Jaj lie?", "answers": "a"},
            r"row 7: .* held_out\.jsonl, row 4",
        ),
    ],
)
def test_a_wrong_row_is_named(files: dict[str, str], file: str, row: object, fault: str) -> None:
    with Path(files[file]).open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=fault):
        SearchQA(**files).task_list("train")


def test_an_empty_corpus_is_refused(files: dict[str, str]) -> None:
    Path(files["corpus_file"]).write_text("")
    with pytest.raises(DataError, match="the corpus is empty"):
        SearchQA(**files).task_list("train")


def search_then_answer(env: SearchQA, task: Task) -> Script:
    """Search for the question as asked, then give the expert's answer."""
    return Script(call("search", query=task.messages[-1].content), *env.gold(task))


class _Retriever(BaseHTTPRequestHandler):
    """Answers as Search-R1's server does; the server's ``mode`` makes it misbehave."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)  # type: ignore[attr-defined]
        mode = self.server.mode  # type: ignore[attr-defined]
        if mode == "slow":
            time.sleep(0.6)
        hits = [{"document": {"contents": '"Aba"\nAba lies in Abaland.'}, "score": 2.5}] * request["topk"]
        body = {"shape": b'{"result": [{"document": 3}]}', "text": b"<html>"}.get(
            mode, json.dumps({"result": [hits]}).encode()
        )
        self.send_response(500 if mode == "broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def retriever() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Retriever)
    server.mode, server.requests = "fine", []  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{server.server_port}/retrieve"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def play_remote(files: dict[str, str], url: str, **settings: Any) -> Trajectory:
    questions = {k: files[k] for k in ("question_file", "held_out_file")}
    env = SearchQA(retriever_url=url, **questions, **settings)
    assert list(env.tools) == ["search"]
    task = env.task_list("train")[0]
    return asyncio.run(rollout(env, search_then_answer(env, task), task, name="search", seed=0))


def test_a_remote_retriever_is_asked_in_the_shape_of_search_r1(files: dict[str, str], retriever: Any) -> None:
    trajectory = play_remote(files, retriever.url, top_k=2)
    assert retriever.requests == [{"queries": ["Where does Aba lie?"], "topk": 2, "return_scores": True}]
    assert trajectory.turns[1].messages[0].content == "\n".join(["Aba: Aba lies in Abaland."] * 2)
    assert trajectory.reward == 1


@pytest.mark.parametrize("mode", ["broken", "slow", "shape", "text"])
def test_a_failing_retriever_is_missing_data(files: dict[str, str], retriever: Any, mode: str) -> None:
    """Never a reward of 0."""
    retriever.mode = mode
    trajectory = play_remote(files, retriever.url, retriever_seconds=0.2)
    assert trajectory.outcome.kind is OutcomeKind.FAILED
    assert trajectory.outcome.reason.startswith("ToolError: retriever http://127.0.0.1")
    assert trajectory.score is None


def test_a_retriever_that_is_down_is_missing_data(files: dict[str, str], retriever: Any) -> None:
    trajectory = play_remote(files, "http://127.0.0.1:9/retrieve", retriever_seconds=0.5)
    assert trajectory.outcome.kind is OutcomeKind.FAILED
    assert trajectory.score is None


async def test_every_episode_of_a_run_asks_over_the_same_connection(
    files: dict[str, str], web_server: Any
) -> None:
    hit = {"document": {"contents": '"Aba"\nAba lies in Abaland.'}}
    web_server.keeps = True
    web_server.answer = lambda body, n: web_server.reply({"result": [[hit]]})
    questions = {name: files[name] for name in ("question_file", "held_out_file")}
    entry = MixEntry(env="search_qa-v1", settings={"retriever_url": web_server.url, **questions})
    async with Services(tools=ToolSettings(cache_entries=0)) as services:
        policy = Script(*script([call("search", query=q) for q in ("one", "two")], "x"))
        collector = Collector([entry], policy, services, concurrency=1)
        task = collector.tasks("search_qa", "train")[0]
        for sample in range(3):
            assert not (await collector.episode("search_qa", task, sample)).failed
        await collector.close()
    assert len(web_server.bodies) == 6
    assert web_server.connections == 1
