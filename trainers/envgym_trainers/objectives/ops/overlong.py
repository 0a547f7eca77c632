"""Soft overlong punishment: DAPO, arXiv 2503.14476, equation 13."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from envgym.config import Section

__all__ = ["SoftOverlong"]


class SoftOverlong(Section):
    """A penalty that grows from 0 to −1 over the last tokens of the allowance.

    Deviation from the paper, which has one-turn answers: the length counts the *sampled* tokens of all turns, as
    the policy is not responsible for tool output.
    """

    max_tokens: int = Field(default=20480, gt=0)
    """L_max: number of sampled tokens at which the penalty reaches −1."""
    cache_tokens: int = Field(default=4096, gt=0)
    """L_c: length of the slope that ends at ``max_tokens``."""

    @model_validator(mode="after")
    def _slope_fits(self) -> Self:
        if self.cache_tokens > self.max_tokens:
            raise ValueError(f"cache_tokens {self.cache_tokens} exceeds max_tokens {self.max_tokens}")
        return self

    def penalty(self, model_tokens: Tensor) -> Tensor:
        """Return 0 if y ≤ L_max − L_c, (L_max − L_c − y)/L_c up to L_max, −1 beyond.

        Args:
            model_tokens: [G] integers, number of tokens that the policy sampled (y).

        Returns:
            [G] float64 in [−1, 0], to be added to the reward before the group is normalised.
        """
        over = self.max_tokens - self.cache_tokens - model_tokens.double()
        return (over / self.cache_tokens).clamp(-1.0, 0.0)
