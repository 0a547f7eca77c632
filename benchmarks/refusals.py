"""How well ``refusal_safety`` reads answers in plain text, on XSTest's labelled completions.

    python benchmarks/refusals.py FOLDER [--fit] [--json]
    python benchmarks/refusals.py FOLDER --words    # what lexicon/talk.txt of the environment holds

FOLDER holds the authors' ``*_streval.csv`` (github.com/paul-rottger/exaggerated-safety, ``evaluation/
automated_evaluation_labels``): the completions of five models, people's labels, and what a string matcher of the
authors' makes of each.

The first byte of a prompt's SHA-256 decides its half: even is *fit*, odd is *measure*, so no prompt is in both.
The rule's phrases and the words of ``--words`` come from *fit*; figures are of *measure*, unless ``--fit`` is
given. Intervals are over prompts, since five answers to one prompt are not independent.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from envgym.evaluate import Interval, mean_interval, paired_gain
from envgym_environments.refusal_safety.free_text import is_refusal
from envgym_environments.refusal_safety.reading import Reading, read_reply
from envgym_environments.refusal_safety.wording import content_stems, plain

_LABELS = {"1_full_compliance": "answer", "2_full_refusal": "refusal", "3_partial_refusal": "partial"}
_MATCHED = "2_full_refusal"
_WIDESPREAD = 8
"""Prompts whose answers use a word, from which on it belongs to any answer."""
_WIDESPREAD_IN_REFUSALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One model's answer to one prompt, with the label that people gave it."""

    prompt: str
    harmful: bool
    text: str
    label: str
    matched: bool
    """Whether the authors' string matcher takes it for a refusal."""


def read_completions(folder: Path) -> list[Completion]:
    """Return the completions of every model in a folder."""
    found = []
    for path in sorted(folder.glob("*_streval.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found += [
                Completion(
                    prompt=row["prompt"],
                    harmful=row["type"].startswith("contrast"),
                    text=row["completion"],
                    label=_LABELS[row["final_label"]],
                    matched=row["strmatch_label"] == _MATCHED,
                )
                for row in csv.DictReader(file)
            ]
    if not found:
        raise SystemExit(f"{folder} holds no *_streval.csv")
    return found


def is_fit(prompt: str) -> bool:
    """Return whether a prompt is in the half that the rule was fitted on."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 2 == 0


def talk(fit: Sequence[Completion]) -> list[str]:
    """Return the stems that answers use whatever the question, and refusals even more so."""
    answers: dict[str, set[str]] = defaultdict(set)
    refusals: dict[str, set[str]] = defaultdict(set)
    for completion in fit:
        said = content_stems(plain(completion.text))
        for stem in said:
            answers[stem].add(completion.prompt)
        if completion.label == "refusal":
            for stem in said - content_stems(plain(completion.prompt)):
                refusals[stem].add(completion.prompt)
    return sorted(
        stem
        for stem, prompts in answers.items()
        if not any(c.isdigit() for c in stem)
        and (len(prompts) >= _WIDESPREAD or len(refusals[stem]) >= _WIDESPREAD_IN_REFUSALS)
    )


def share(rows: Sequence[Completion], holds: Callable[[Completion], bool]) -> Interval:
    """Return the share of completions for which something holds, with an interval over prompts."""
    by_prompt: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        by_prompt[row.prompt].append(holds(row))
    if not by_prompt:
        return mean_interval([])
    every = [held for helds in by_prompt.values() for held in helds]
    interval = mean_interval([sum(helds) / len(helds) for helds in by_prompt.values()])
    # The mean over completions, which is what the authors report, moved with its interval.
    moved = sum(every) / len(every) - interval.mean
    low, high = max(0.0, interval.low + moved), min(1.0, interval.high + moved)
    return Interval(mean=interval.mean + moved, low=low, high=high, n=len(every))


def gain(rows: Sequence[Completion]) -> Interval:
    """Return by how much the rule agrees with people more often than the string matcher, paired by prompt."""
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for row in rows:
        refused = row.label == "refusal"
        pairs[row.prompt].append((row.matched == refused, is_refusal(row.text) == refused))
    before, after = ([fmean(pair[i] for pair in found) for found in pairs.values()] for i in (0, 1))
    return paired_gain(before, after)


def measure(rows: Sequence[Completion]) -> dict[str, Interval]:
    """Return the figures on one half."""
    clear = [row for row in rows if row.label != "partial"]
    refusals = [row for row in rows if row.label == "refusal"]
    answers = [row for row in rows if row.label == "answer"]
    figures = {
        "agreement, rule": share(clear, lambda row: is_refusal(row.text) == (row.label == "refusal")),
        "agreement, string matcher": share(clear, lambda row: row.matched == (row.label == "refusal")),
        "agreement, rule less string matcher": gain(clear),
        "missed refusals, rule": share(refusals, lambda row: not is_refusal(row.text)),
        "missed refusals, string matcher": share(refusals, lambda row: not row.matched),
        "false refusals, rule": share(answers, lambda row: is_refusal(row.text)),
        "false refusals, string matcher": share(answers, lambda row: row.matched),
    }
    safe = [row for row in answers if not row.harmful]
    draw = random.Random(0)
    others = {row.prompt: [other.text for other in safe if other.prompt != row.prompt] for row in safe}
    swapped = {id(row): draw.choice(others[row.prompt] or [""]) for row in safe}
    groups: dict[str, tuple[list[Completion], Callable[[Completion], str]]] = {
        "harmful, refused": ([row for row in refusals if row.harmful], lambda row: row.text),
        "harmful, refused in part": (
            [r for r in rows if r.harmful and r.label == "partial"],
            lambda row: row.text,
        ),
        "harmful, answered": ([row for row in answers if row.harmful], lambda row: row.text),
        "benign, answered": (safe, lambda row: row.text),
        "benign, answer to another": (safe, lambda row: swapped[id(row)]),
        "benign, refused": ([row for row in refusals if not row.harmful], lambda row: row.text),
        "benign, refused in part": (
            [r for r in rows if not r.harmful and r.label == "partial"],
            lambda row: row.text,
        ),
    }
    for name, (group, text) in groups.items():
        for reading in Reading:
            figures[f"{name}: read as {reading}"] = share(
                group, lambda row, text=text, reading=reading: read_reply(row.prompt, text(row)) is reading
            )
    return figures


def main() -> None:
    """Print the figures of the half that nothing was fitted on, or the words of the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of *_streval.csv")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--words", action="store_true", help="print the words of the fit half instead")
    parser.add_argument("--fit", action="store_true", help="print the figures of the fit half instead")
    arguments = parser.parse_args()
    completions = read_completions(arguments.folder)
    if arguments.words:
        fit = [completion for completion in completions if is_fit(completion.prompt)]
        print(textwrap.fill(" ".join(talk(fit)), width=115))
        return
    figures = measure([row for row in completions if is_fit(row.prompt) == arguments.fit])
    if arguments.json:
        print(json.dumps({name: interval.as_dict() for name, interval in figures.items()}))
        return
    for name, interval in figures.items():
        print(f"{name:46} {interval}  n={interval.n}")


if __name__ == "__main__":
    main()
