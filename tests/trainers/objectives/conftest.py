"""Random batches for the objectives' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from envgym_trainers.batch import Batch


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., tuple[Batch, Tensor]]:
    """``random_batch(seed)``: a float64 off-policy batch [6, 9] with a ragged mask, and its log-probs."""

    def make(seed: int = 0) -> tuple[Batch, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        mask = torch.rand(6, 9, generator=generator) < 0.6
        mask[:, 0], mask[:, 1] = False, True
        old = -normal(6, 9).abs()
        batch = Batch(
            ids=torch.randint(0, 97, (6, 9), generator=generator),
            attention=torch.ones(6, 9, dtype=torch.bool),
            mask=mask,
            behaviour_logprobs=old + 0.5 * normal(6, 9),
            advantages=normal(6, 1).expand(6, 9),
            unit=torch.arange(6),
            old_logprobs=old,
            reference_logprobs=old + 0.3 * normal(6, 9),
        )
        return batch, old + 0.4 * normal(6, 9)

    return make
