"""95% confidence intervals over problems.

Chosen by coverage in simulation (``benchmarks/interval_coverage.py``), near 0 and 1 and in small samples too:

- the mean of scores that are all at an end of the range: Clopper and Pearson 1934, exact;
- the gain of such scores, paired by problem: Newcombe 1998, method 10, over exact single limits;
- any other mean or paired gain: Student's interval after one imagined problem at either end of the range, as
  Agresti and Caffo 2000 and Bonett and Price 2012 do for shares;
- means over environments: the intervals of the parts, combined (MOVER; Donner and Zou 2012).

None has width 0: scores that are all equal say little about other problems.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

__all__ = ["Interval", "mean_interval", "mean_of", "paired_gain"]

Span = tuple[float, float]

_TAIL = 0.025
_TAIL_PAIRED = 0.02
"""Smaller than ``_TAIL``, with which Newcombe's interval covers 0.926 of cases near 0 before and near 1 after."""
_BISECTIONS = 50
_QUANTILES = (0.0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447)
"""97.5% quantiles of Student's t with 1 to 6 degrees of freedom, where the expansion does not hold."""


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


_NOTHING = Interval(mean=math.nan, low=math.nan, high=math.nan, n=0)


def mean_interval(values: Sequence[float], span: Span = (0.0, 1.0)) -> Interval:
    """Return the mean of one score per problem with its interval.

    Args:
        values: finite scores.
        span: lowest and highest score that is possible; scores outside widen it.
    """
    if not values:
        return _NOTHING
    low, high = _widened(span, values)
    if _at_ends(values, low, high):
        return _scaled(_share(values, high), low, high - low)
    return _student(values, low, high)


def paired_gain(before: Sequence[float], after: Sequence[float], span: Span = (0.0, 1.0)) -> Interval:
    """Return the mean of ``after - before``, paired by problem, with its interval.

    Args:
        before: finite scores, one per problem.
        after: the scores of the same problems.
        span: lowest and highest score that is possible; scores outside widen it.

    Raises:
        ValueError: the lengths differ.
    """
    gains = [b - a for a, b in zip(before, after, strict=True)]
    if not gains:
        return _NOTHING
    low, high = _widened(_widened(span, before), after)
    width = high - low
    if _at_ends(before, low, high) and _at_ends(after, low, high):
        return _scaled(_newcombe([b == high for b in before], [a == high for a in after]), 0.0, width)
    return _student(gains, -width, width)


def mean_of(parts: Sequence[Interval]) -> Interval:
    """Return the mean over environments, each of which counts the same, from independent intervals of each."""
    present = [part for part in parts if part.n]
    if not present:
        return _NOTHING
    mean = sum(part.mean for part in present) / len(present)
    below = math.hypot(*(part.mean - part.low for part in present)) / len(present)
    above = math.hypot(*(part.high - part.mean for part in present)) / len(present)
    return Interval(mean=mean, low=mean - below, high=mean + above, n=sum(part.n for part in present))


def _widened(span: Span, values: Sequence[float]) -> Span:
    return min(span[0], *values), max(span[1], *values)


def _at_ends(values: Sequence[float], low: float, high: float) -> bool:
    """Whether a mean is a share in disguise; scores of 0 and 1 are not where -1 is possible, too."""
    return low < high and all(value in (low, high) for value in values)


def _scaled(interval: Interval, start: float, width: float) -> Interval:
    mean, low, high = (start + width * limit for limit in (interval.mean, interval.low, interval.high))
    return Interval(mean=mean, low=low, high=high, n=interval.n)


def _share(values: Sequence[float], high: float) -> Interval:
    successes, n = sum(value == high for value in values), len(values)
    lower, upper = _exact(successes, n, _TAIL)
    return Interval(mean=successes / n, low=lower, high=upper, n=n)


def _student(values: Sequence[float], low: float, high: float) -> Interval:
    imagined = np.array([*values, low, high], dtype=np.float64)
    centre, n = float(imagined.mean()), len(imagined)
    half = _student_quantile(n - 1) * float(imagined.std(ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    # The imagined problems draw the centre inwards; the mean itself stays inside.
    return Interval(
        mean=mean,
        low=max(low, min(centre - half, mean)),
        high=min(high, max(centre + half, mean)),
        n=len(values),
    )


def _newcombe(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    n = len(before)
    both = sum(map(operator.and_, before, after))
    old, new = sum(before), sum(after)
    product = old * (n - old) * new * (n - new)
    # The correlation of the pairs, drawn towards 0 where it is positive: Newcombe's continuity correction.
    excess = both * n - old * new
    correlation = (min(excess, max(excess - n / 2, 0.0)) / math.sqrt(product)) if product else 0.0
    low_new, high_new = _exact(new, n, _TAIL_PAIRED)
    low_old, high_old = _exact(old, n, _TAIL_PAIRED)
    gain = (new - old) / n
    down, up = new / n - low_new, high_old - old / n
    below = math.sqrt(max(0.0, down**2 - 2 * correlation * down * up + up**2))
    down, up = old / n - low_old, high_new - new / n
    above = math.sqrt(max(0.0, down**2 - 2 * correlation * down * up + up**2))
    return Interval(mean=gain, low=max(-1.0, gain - below), high=min(1.0, gain + above), n=n)


@functools.lru_cache(maxsize=4096)
def _exact(successes: int, n: int, tail: float) -> tuple[float, float]:
    """Return the limits of Clopper and Pearson for a share."""
    counts = np.arange(n + 1)
    gammas = np.array([math.lgamma(i + 1.0) for i in range(n + 1)])
    ways = gammas[n] - gammas - gammas[::-1]

    def at_most(k: int, share: float) -> float:
        logs = ways + counts * math.log(share) + (n - counts) * math.log1p(-share)
        return float(np.exp(logs[: k + 1]).sum())

    low, high = 0.0, 1.0
    if successes > 0:
        low = _last(lambda share: 1 - at_most(successes - 1, share) < tail)
    if successes < n:
        high = _last(lambda share: at_most(successes, share) > tail)
    return low, high


def _last(holds: Callable[[float], bool]) -> float:
    """Return the number in (0, 1) up to which ``holds`` is true."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t: Cornish and Fisher's expansion, within 0.001 from 7 degrees on."""
    if freedom < len(_QUANTILES):
        return _QUANTILES[freedom]
    z = NormalDist().inv_cdf(1 - _TAIL)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
