"""Programs as a beginner submits them: the last operation is forgotten."""

from __future__ import annotations

import ast

__all__ = ["without_last_operation"]


def without_last_operation(solution: str) -> str:
    """Return the solution with its last result cut down to the longest part that was computed before.

    ``return sum(x[2:])`` becomes ``return x[2:]``. A result without such a part becomes ``None``.
    """
    results = [node for node in ast.walk(ast.parse(solution)) if isinstance(node, ast.Return | ast.Expr)]
    if not results or (result := results[-1].value) is None:
        return "pass"
    if isinstance(results[-1], ast.Expr) and isinstance(result, ast.Call) and result.args:
        result = result.args[0]  # what a program prints
    whole = ast.get_source_segment(solution, result) or ""
    parts = [ast.get_source_segment(solution, node) or "" for node in _inputs(result)]
    head, _, tail = solution.rpartition(whole)
    return head + max(parts, key=len, default="None") + tail


def _inputs(result: ast.expr) -> list[ast.expr]:
    """Return the values that an expression is computed from, as far as they depend on a variable."""
    called = {node.func for node in ast.walk(result) if isinstance(node, ast.Call)}
    conditions = {node.test for node in ast.walk(result) if isinstance(node, ast.IfExp)}
    bound = _names(result, ast.Store)

    def stands_alone(node: ast.expr) -> bool:
        used = _names(node, ast.Load) - {f.id for f in called if isinstance(f, ast.Name)}
        own = _names(node, ast.Store)
        return bool(used - own) and not used & (bound - own)

    parts = [node for node in ast.walk(result) if isinstance(node, ast.expr)]
    return [node for node in parts if node not in {result, *called, *conditions} and stands_alone(node)]


def _names(node: ast.expr, context: type[ast.expr_context]) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}
