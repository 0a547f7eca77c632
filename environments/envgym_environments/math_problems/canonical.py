"""One form for expressions that ask the same: the order of summands and factors does not count."""

from __future__ import annotations

import ast
from typing import TypeAlias

__all__ = ["canonical"]

Form: TypeAlias = tuple[str, ...]


def canonical(expression: str) -> str:
    """Return the form of an arithmetic expression in Python's notation.

    ``3+4`` and ``4+3`` have one form, and so have ``9-5+1`` and ``1+9-5``; equal values alone do not make equal
    forms.
    """
    return repr(_form(ast.parse(expression, mode="eval").body))


def _form(node: ast.expr) -> Form:
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return ("sum", *sorted(map(repr, _parts(node, ast.Add, ast.Sub))))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ("sum", repr(("inverse", _form(operand))))
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            return ("product", *sorted(map(repr, _parts(node, ast.Mult, ast.Div))))
        case ast.BinOp(left=left, op=operator, right=right):
            return (type(operator).__name__, repr(_form(left)), repr(_form(right)))
        case _:
            return (ast.unparse(node),)


def _parts(node: ast.expr, direct: type[ast.operator], inverse: type[ast.operator]) -> list[tuple[str, Form]]:
    """Return the operands of a chain of one operator and its inverse, each with the side that it is on."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, direct | inverse):
        turned = isinstance(node.op, inverse)
        right = _parts(node.right, direct, inverse)
        if turned:
            right = [("direct" if side == "inverse" else "inverse", form) for side, form in right]
        return [*_parts(node.left, direct, inverse), *right]
    return [("direct", _form(node))]
