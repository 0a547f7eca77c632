"""95% confidence intervals over problems.

Binary scores get Wilson's interval (Wilson 1927), which stays honest at 0 and 1; everything else a percentile
bootstrap over problems (Efron 1979), resampled with a fixed seed. Gains are paired: the same problem before and
after, so that the spread between problems cancels. A bootstrap sees only the scores given: if they are all equal,
or there is only one, its interval has no width and says nothing about other problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "mean_interval", "mean_of_means", "paired_gain"]

_Z = 1.959963984540054  # 97.5% quantile of the standard normal
_RESAMPLES = 4000
_BLOCK = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95% interval over ``n`` problems; all NaN where there are none."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, float | None]:
        """Return the fields for JSON, where NaN becomes null."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of one score per problem with its interval."""
    if values and all(v in (0.0, 1.0) for v in values):
        return _wilson(sum(values), len(values))
    return mean_of_means([values])


def paired_gain(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Return the mean of ``after - before``, paired by problem, with its interval.

    Raises:
        ValueError: the lengths differ.
    """
    return mean_of_means([[b - a for a, b in zip(before, after, strict=True)]])


def mean_of_means(strata: Sequence[Sequence[float]]) -> Interval:
    """Return the mean over environments of the mean over problems; resample problems within each environment."""
    present = [np.asarray(values, dtype=np.float64) for values in strata if len(values)]
    n = sum(len(values) for values in present)
    if not present:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, n=0)
    rng = np.random.default_rng(0)
    draws = np.zeros(_RESAMPLES)
    for values in present:
        draws += _resampled_means(values, rng) / len(present)
    mean = float(np.mean([values.mean() for values in present]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(mean=mean, low=float(low), high=float(high), n=n)


def _resampled_means(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the means of resamples, [R], drawn in blocks so that memory stays bounded."""
    rows = max(1, _BLOCK // len(values))
    shapes = [(min(rows, _RESAMPLES - start), len(values)) for start in range(0, _RESAMPLES, rows)]
    return np.concatenate([values[rng.integers(len(values), size=shape)].mean(axis=1) for shape in shapes])


def _wilson(successes: float, n: int) -> Interval:
    share = successes / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Interval(mean=share, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)
