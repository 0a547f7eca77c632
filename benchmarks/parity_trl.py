"""Train a small GPT-2 for 20 steps on the same completions as TRL, and compare every weight.

    python benchmarks/parity_trl.py --trl-python PYTHON [--json]

Needs trl==1.16.0 beside envgym, or in another environment (``--trl-python``). Same start, same samples and
advantages, same AdamW. GPT-2, because Llama computes its norms in float32 whatever its weights are. In float64
nothing but the order of sums differs. In float32, two measures of rounding are beside it: how far TRL's runs with
8, 4, 2 and 1 samples at once are from one another, and how far each library's float32 run is from its float64 run.
Exits with 1 if a float64 weight is 1e-6 off or more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS, GROUPS, MEMBERS, PROMPT, COMPLETION = 20, 2, 4, 12, 20
RATE = 1e-4
LOSSES = ("grpo", "dapo")
LIMIT = 1e-6
AT_ONCE = {"trl": 8, "trl-4": 4, "trl-2": 2, "trl-1": 1}
"""Samples in a micro-batch of each of TRL's runs."""


def data(step: int) -> tuple[list[list[int]], list[int], list[float]]:
    """Return ids of prompts and completions, lengths of the completions, and advantages: exact in float32."""
    draw = random.Random(step)
    ids, lengths = [], []
    for _ in range(GROUPS):
        prompt = [draw.randrange(8, 600) for _ in range(PROMPT)]
        for _ in range(MEMBERS):
            ids.append(prompt + [draw.randrange(8, 600) for _ in range(COMPLETION)])
            lengths.append(draw.randint(1, COMPLETION))
    return ids, lengths, [draw.choice([-1.5, -0.5, 0.25, 1.0]) for _ in ids]


def make_start(out: str) -> None:
    """Write a model of random weights with the built-in model's tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from envgym_trainers.models.load import ModelConfig, load_model

    torch.manual_seed(0)
    tokenizer = load_model(ModelConfig(path="builtin:tiny")).tokenizer
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": len(tokenizer)}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    GPT2LMHeadModel(GPT2Config(**sizes, **drops, bos_token_id=0, eos_token_id=1)).save_pretrained(out)
    tokenizer.save_pretrained(out)


def train_envgym(start: str, out: str, loss: str, dtype: str) -> None:
    """Take the steps with ``Updater``."""
    import torch

    from envgym_trainers.batch import Sample
    from envgym_trainers.learner.updater import Updater
    from envgym_trainers.models.load import ModelConfig, load_model
    from envgym_trainers.objectives import Objective
    from envgym_trainers.objectives.dapo import DAPO
    from envgym_trainers.objectives.grpo import GRPO
    from envgym_trainers.recipe import OptimizerConfig

    language_model = load_model(ModelConfig(path=start))
    language_model.model.to(getattr(torch, dtype))
    objective: Objective = GRPO() if loss == "grpo" else DAPO(clip_high=0.2)
    config = OptimizerConfig(learning_rate=RATE, micro_batch_tokens=4 * (PROMPT + COMPLETION))
    updater = Updater(language_model, config, temperature=1.0, total_updates=STEPS)
    for step in range(STEPS):
        units = []
        for i, (ids, length, advantage) in enumerate(zip(*data(step), strict=True)):
            used = torch.tensor(ids[: PROMPT + length])
            mask = torch.arange(len(used)) >= PROMPT
            sample = Sample(
                ids=used,
                mask=mask,
                logprobs=torch.full((len(used),), torch.nan),
                group=str(i // MEMBERS),
                version=0,
                advantages=mask * advantage,
            )
            units.append((sample,))
        updater.update(units, objective.loss)
    language_model.model.save_pretrained(out)


def train_trl(start: str, out: str, loss: str, dtype: str, at_once: int) -> None:
    """Take the steps with TRL's own training loop; only its sampling is replaced."""
    import _trl
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def given(step: int) -> _trl.Samples:
        ids, lengths, advantages = data(step)
        exact = torch.tensor(advantages, dtype=getattr(torch, dtype))
        return _trl.Samples(ids=torch.tensor(ids), prompt=PROMPT, lengths=lengths, advantages=exact)

    count = GROUPS * MEMBERS
    model = AutoModelForCausalLM.from_pretrained(start, dtype=getattr(torch, dtype))
    _trl.train(
        model,
        given,
        count,
        tokenizer=AutoTokenizer.from_pretrained(start),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=count // at_once,
        num_generations=MEMBERS,
        max_completion_length=COMPLETION,
        max_steps=STEPS,
        loss_type=loss,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        gradient_checkpointing=False,
    )
    model.save_pretrained(out)


def run(python: str, arm: str, start: str, out: Path, loss: str, dtype: str) -> dict[str, Any]:
    """Run an arm in a process of its own and return its weights."""
    from safetensors.numpy import load_file

    words = [python, __file__, "--arm", arm, "--start", start, "--out", str(out), "--loss", loss, "--dtype", dtype]
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | settings)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = load_file(out / "model.safetensors")
    return found


def gap(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Return the largest difference between two sets of weights."""
    return max(float(abs(one[name] - two[name]).max()) for name in one)


def main() -> None:
    """Compare, and print a line per loss and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trl-python", default=sys.executable, help="an interpreter that has TRL")
    parser.add_argument("--json", action="store_true", help="print JSON")
    for name in ("--arm", "--start", "--out", "--loss", "--dtype"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    place = (options.start, options.out, options.loss, options.dtype)
    if options.arm == "start":
        make_start(options.out)
        return
    if options.arm == "envgym":
        train_envgym(*place)
        return
    if options.arm:
        train_trl(*place, at_once=AT_ONCE[options.arm])
        return
    from safetensors.numpy import load_file

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start")
        subprocess.run([sys.executable, __file__, "--arm", "start", "--out", start], check=True)
        pythons = {"envgym": sys.executable} | dict.fromkeys(AT_ONCE, options.trl_python)
        for loss in LOSSES:
            exact: dict[str, Any] = {}
            for dtype in ("float64", "float32"):
                found = {
                    arm: run(python, arm, start, Path(folder) / arm / loss / dtype, loss, dtype)
                    for arm, python in pythons.items()
                }
                exact = exact or found
                pairs = itertools.combinations(AT_ONCE, 2)
                rows[f"{loss} {dtype}"] = {
                    "envgym_trl": gap(found["envgym"], found["trl"]),
                    "trl_trl": max(gap(found[one], found[two]) for one, two in pairs),
                    "envgym_rounding": gap(found["envgym"], exact["envgym"]),
                    "trl_rounding": max(gap(found[arm], exact[arm]) for arm in AT_ONCE),
                    "moved": gap(found["trl"], load_file(Path(start) / "model.safetensors")),
                }
    if options.json:
        print(json.dumps(rows))
    else:
        for name, row in rows.items():
            print(
                f"{name}: envgym - TRL {row['envgym_trl']:.1e}, TRL - TRL {row['trl_trl']:.1e}; from float64: "
                f"envgym {row['envgym_rounding']:.1e}, TRL {row['trl_rounding']:.1e}; "
                f"largest move {row['moved']:.1e}"
            )
    sys.exit(any(row["envgym_trl"] >= LIMIT for name, row in rows.items() if "float64" in name))


if __name__ == "__main__":
    main()
