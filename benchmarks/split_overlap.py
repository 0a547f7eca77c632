"""Problems that the splits of the built-in environments share: none may be, in whatever words.

    python benchmarks/split_overlap.py [--tasks 10000] [--json]

Counts the problem keys of each split and those that both have. Then each task is asked again in other words, by
code of its own: people, functions and atoms renamed, operands commuted, premises shuffled. A variant with another
key could land in the other split. Exits with 1 if a key is shared or a variant has another one.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections.abc import Callable
from typing import Any

from envgym.env.registration import environments
from envgym.records import Task, problem_key
from envgym.verifiers.logic import Formula, read_formula
from envgym.verifiers.logic.formulas import Atom, Binary, Not, Quantified
from envgym_environments.code_sandbox.behaviour import behaviour
from envgym_environments.math_problems.canonical import canonical
from envgym_environments.proof_checker.canonical import proof_key
from envgym_environments.refusal_safety.scenarios import NAMES
from envgym_environments.refusal_safety.twins import Twins, make_request

Variant = Callable[[Task, random.Random], str]
"""Returns ``Task.problem`` of the same problem in other words."""


class _Commute(ast.NodeTransformer):
    """Swap the operands of sums and products at random."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Add | ast.Mult) and self.rng.random() < 0.7:
            node.left, node.right = node.right, node.left
        return node


def math_variant(task: Task, rng: random.Random) -> str:
    """Commute the expression; other names and things in the story do not reach it."""
    assert isinstance(task.reference, dict)
    tree = _Commute(rng).visit(ast.parse(str(task.reference["expression"]), mode="eval"))
    return canonical(ast.unparse(tree))


def code_variant(task: Task, rng: random.Random) -> str:
    """Rename the function and commute its sums and products where they are numbers'."""
    assert isinstance(task.reference, dict)
    kind = task.problem.partition(" ")[0]
    tree = ast.parse(str(task.reference["solution"]))
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    function.name = "renamed"
    if kind == "number":
        tree = _Commute(rng).visit(tree)
    space: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(tree), "variant", "exec"), space)  # noqa: S102 - of our own making
    return behaviour(kind, space["renamed"])


def search_variant(task: Task, rng: random.Random) -> str:
    """Read entity and relations back from the words of the question."""
    words = task.messages[-1].content.removesuffix("?").partition(" is ")[2]
    *relations, entity = words.removeprefix("the ").replace(" of the ", " of ").split(" of ")
    return f"{task.problem.partition(' ')[0]} {' > '.join([entity, *reversed(relations)])}"


def proof_variant(task: Task, rng: random.Random) -> str:
    """Rename what has a name, shuffle the premises, swap the sides of connectives that commute."""
    assert isinstance(task.reference, dict)
    premises = [read_formula(str(text)) for text in task.reference["premises"]]  # type: ignore[union-attr]
    goal = read_formula(str(task.reference["goal"]))
    names: dict[str, str] = {}
    turned = [_turned(formula, names, frozenset(), rng) for formula in (*premises, goal)]
    return proof_key(rng.sample(turned[:-1], len(premises)), turned[-1])


def _turned(formula: Formula, names: dict[str, str], bound: frozenset[str], rng: random.Random) -> Formula:
    def renamed(name: str) -> str:
        return name if name in bound else names.setdefault(name, f"n{len(names)}")

    match formula:
        case Atom(name, terms):
            return Atom(renamed(name), tuple(map(renamed, terms)))
        case Not(body):
            return Not(_turned(body, names, bound, rng))
        case Quantified(quantifier, variable, body):
            return Quantified(quantifier, variable, _turned(body, names, bound | {variable}, rng))
        case Binary(operator, left, right):
            sides = [_turned(side, names, bound, rng) for side in (left, right)]
            if operator != "->" and rng.random() < 0.5:
                sides.reverse()
            return Binary(operator, *sides)


def requests(tasks: Twins, rng: random.Random) -> int:
    """Rename everybody in the requests behind twins; return how many then have another key."""
    changed = 0
    for request in tasks.requests:
        new = dict(zip(NAMES, rng.sample(NAMES, len(NAMES)), strict=True))
        slots: Any = request.metadata["slots"]
        renamed = make_request(str(request.metadata["family"]), _rename(slots, new), request.split, "")
        changed += renamed.problem != request.problem
    return changed


def _rename(value: Any, new: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _rename(inner, new) for name, inner in value.items()}
    return new.get(value, value) if isinstance(value, str) else value


VARIANTS: dict[str, Variant | None] = {
    "math_problems": math_variant,
    "code_sandbox": code_variant,
    "search_qa": search_variant,
    "refusal_safety": None,
    "proof_checker": proof_variant,
}


def measure(name: str, size: int) -> dict[str, Any]:
    """Count keys, shared keys, and variants with another key."""
    env = environments.load(f"{name}-v1")(size=size)
    rng = random.Random(0)
    keys: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    changed = 0
    for split in ("train", "held_out"):
        tasks = env.task_list(split)
        sizes[split] = len(tasks)
        keys[split] = {problem_key(task) for task in tasks}
        variant = VARIANTS[name]
        changed += requests(tasks, rng) if variant is None else sum(variant(t, rng) != t.problem for t in tasks)
    env.close()
    return {
        "train_tasks": sizes["train"],
        "held_out_tasks": sizes["held_out"],
        "train_problems": len(keys["train"]),
        "held_out_problems": len(keys["held_out"]),
        "shared_problems": len(keys["train"] & keys["held_out"]),
        "variants_with_another_key": changed,
    }


def main() -> None:
    """Measure every built-in environment and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks of each split")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = {name: measure(name, options.tasks) for name in VARIANTS}
    if options.json:
        print(json.dumps(rows))
    else:
        for name, row in rows.items():
            print(f"{name}: {', '.join(f'{key} {value:,}' for key, value in row.items())}")
    sys.exit(any(row["shared_problems"] or row["variants_with_another_key"] for row in rows.values()))


if __name__ == "__main__":
    main()
