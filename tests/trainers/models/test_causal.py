"""The CPU's causal attention is the plain one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from envgym_trainers.models.causal import causal_attention


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (4, 1)]),
    queries=st.integers(1, 150),
    ahead=st.integers(0, 90),
    width=st.sampled_from([1, 8, 33]),
    scale=st.floats(0.01, 3),
)
def test_values_and_gradients_are_those_of_attention_with_a_mask(
    rows: int, heads: tuple[int, int], queries: int, ahead: int, width: int, scale: float
) -> None:
    """In float64, over the edges of blocks, with keys in front and heads that share them."""
    torch.manual_seed(0)
    count, shared = heads
    # Models hand their heads over as views of [B, T, heads, D].
    query = torch.randn(rows, queries, count, width, dtype=torch.float64).transpose(1, 2).requires_grad_()
    key, value = (
        torch.randn(rows, ahead + queries, shared, width, dtype=torch.float64).transpose(1, 2).requires_grad_()
        for _ in range(2)
    )
    inputs = (query, key, value)
    found = causal_attention(*inputs, scale)[0]
    mask = torch.ones(queries, ahead + queries, dtype=torch.bool).tril(ahead)
    expected = nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=scale, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    change = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, change), torch.autograd.grad(expected, inputs, change)
    )


def test_large_scores_do_not_overflow() -> None:
    tensor = torch.full((1, 1, 3, 4), 100.0)
    assert bool((causal_attention(tensor, tensor, tensor, 1.0)[0] == 100).all())


def test_the_operator_keeps_its_contract() -> None:
    """torch's own checks of a custom operator: its schema, its gradient, and that it changes no argument."""
    tensors = [torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3)]
    torch.library.opcheck(
        causal_attention, (*tensors, 0.5), test_utils=("test_schema", "test_autograd_registration")
    )
