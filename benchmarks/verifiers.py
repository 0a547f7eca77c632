"""How much faster envgym's math verifier is than Math-Verify, and how long hostile input keeps it busy.

    python benchmarks/verifiers.py [--json] [--rounds N]

Both verifiers see the same pairs in the same process, alternating by round; a figure is the ratio of the
medians over the rounds. Plain answers are 500 generated numbers, right and wrong; the labelled pairs are the
tests'. Math-Verify gets each side in dollar signs, as its documentation asks for LaTeX.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from math_verify import parse, verify

from envgym.verifiers import verify_math

_DATA = Path(__file__).parents[1] / "tests" / "verifiers" / "data"
_HOSTILE = (
    "9^{9^{9^9}}",
    "1000000!",
    "(" * 10_000,
    "{" * 10_000 + "}" * 10_000,
    "9" * 100_000,
    "(x+y+z+w)^{12}(a+b+c)^{12}",
    r"\sqrt{" * 30 + "2" + "}" * 30,
    r"\sin(" * 30 + "x" + ")" * 30,
    "e^{e^{e^{e^{9999}}}}",
    "7^{9999}*3^{9999}/11^{9999}+1",
    r"\lfloor 9^{9999}/7\rfloor",
    "x^{x^{x^{x^{x^x}}}}",
    r"\boxed{" * 5_000,
    "-" * 500 + "1",
    "1/" * 255 + "1",
)
_HOSTILE_GOLDS = ("12", r"1+\sqrt{2}", "x^2+1")

Row = dict[str, Any]
Verifier = Callable[[Row], bool]


def _envgym(row: Row) -> bool:
    options = {name: row[name] for name in ("unit", "percent", "rounded") if name in row}
    return verify_math(row["prediction"], row["gold"], **options).correct


def _math_verify(row: Row) -> bool:
    gold, prediction = (parse(f"${row[side]}$") for side in ("gold", "prediction"))
    return bool(verify(gold, prediction))


def _plain_rows(count: int) -> list[Row]:
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        gold = draw.choice(
            [str(draw.randint(0, 99_999)), f"{draw.uniform(0, 100):.2f}", f"{draw.randint(1, 9)}/7"]
        )
        rows.append({"prediction": gold if draw.random() < 0.5 else f"{draw.randint(0, 99_999)}", "gold": gold})
    return rows


def _labelled_rows() -> list[Row]:
    """The pairs of the tests, without those whose prediction is a whole message for the extractor."""
    rows = []
    for name in ("equiv", "nonequiv"):
        lines = (_DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows += [{**json.loads(line), "equal": name == "equiv"} for line in lines]
    messages = ("boxed", "<answer>", "<think>", "</think>", "####", "fbox", "\n")
    return [row for row in rows if not any(mark in row["prediction"] for mark in messages)]


def _seconds(verifier: Verifier, rows: Iterable[Row]) -> float:
    start = time.perf_counter()
    for row in rows:
        verifier(row)
    return time.perf_counter() - start


def _medians(rows: list[Row], rounds: int) -> tuple[float, float]:
    """Median seconds of a whole pass of (envgym, Math-Verify), after one pass of each to fill caches."""
    ours, theirs = [], []
    for number in range(rounds + 1):
        pair = _seconds(_envgym, rows), _seconds(_math_verify, rows)
        if number:
            ours.append(pair[0])
            theirs.append(pair[1])
    return statistics.median(ours), statistics.median(theirs)


def _hostile_worst() -> float:
    verify_math(r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}")
    worst = 0.0
    for text in _HOSTILE:
        for gold in _HOSTILE_GOLDS:
            worst = max(worst, verify_math(text, gold).elapsed)
    return worst


def measure(rounds: int) -> dict[str, float]:
    """Return the figures: ratios of medians, microseconds per answer, seconds of the worst hostile input."""
    plain, labelled = _plain_rows(500), _labelled_rows()
    plain_ours, plain_theirs = _medians(plain, rounds)
    labelled_ours, labelled_theirs = _medians(labelled, rounds)
    agreement = {
        name: sum(verifier(row) is row["equal"] for row in labelled) / len(labelled)
        for name, verifier in (("envgym", _envgym), ("math_verify", _math_verify))
    }
    return {
        "numeric_speedup": plain_theirs / plain_ours,
        "numeric_envgym_us": plain_ours / len(plain) * 1e6,
        "numeric_math_verify_us": plain_theirs / len(plain) * 1e6,
        "labelled_speedup": labelled_theirs / labelled_ours,
        "labelled_envgym_us": labelled_ours / len(labelled) * 1e6,
        "labelled_math_verify_us": labelled_theirs / len(labelled) * 1e6,
        "labelled_pairs": len(labelled),
        "labelled_envgym_agreement": agreement["envgym"],
        "labelled_math_verify_agreement": agreement["math_verify"],
        "hostile_worst_s": _hostile_worst(),
    }


def main() -> None:
    """Print the figures, as a table or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each verifier over each set")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    logging.disable(logging.ERROR)  # Math-Verify warns for each pair it cannot read
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:32} {value:12.4g}")


if __name__ == "__main__":
    main()
