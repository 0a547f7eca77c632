"""How often the 95% intervals that envgym prints hold the true value, in simulation.

    python benchmarks/interval_coverage.py [--repetitions 4000] [--json]

Every interval that a table, a summary or a report shows: means and paired gains of rewards in [0, 1] and [-1, 1],
binary, averaged over samples, in steps and continuous, alone and combined over environments; near both ends of the
range, and at them. Exits with 1 if one covers less than 93%.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np

from envgym.evaluate import Interval, mean_interval, mean_of, paired_gain

SIZES = (20, 64, 100)
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 1.0)
KINDS = ("binary", "mean of 4", "half points", "continuous")
SIGNED = ("signs", "mean of 4 signs", "signs and 0", "signed continuous")
STEPS = ((0.0, 0.05), (0.02, 0.02), (0.02, 0.05), (0.1, 0.6), (0.5, 0.5), (0.05, 0.95), (0.97, 0.99), (0.98, 1.0))
CORRELATIONS = (0.0, 0.6, 0.95)
LEAST = 0.93
_ATOMS = 4000

rng = np.random.default_rng(0)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The distribution of a problem's score, as a function of a standard normal variable."""

    values: np.ndarray  # [K]
    limits: np.ndarray  # [K - 1], where the next value begins
    mean: float
    span: tuple[float, float]

    def of(self, latent: np.ndarray) -> np.ndarray:
        """Return the scores of standard normal variables; correlated ones give correlated scores."""
        return self.values[np.searchsorted(self.limits, latent)]


@functools.cache
def scores(kind: str, share: float) -> Scores:
    """Return a distribution whose mean rises from the lower to the upper end of its range with ``share``."""
    signed = kind in SIGNED
    match kind:
        case "binary" | "signs":
            values, weights = [0.0, 1.0], [1 - share, share]
        case "mean of 4" | "mean of 4 signs":
            values = [0.0, 0.25, 0.5, 0.75, 1.0]
            weights = [math.comb(4, k) * share**k * (1 - share) ** (4 - k) for k in range(5)]
        case "half points":
            values, weights = [0.0, 0.5, 1.0], [1 - share, share / 2, share / 2]
        case "signs and 0":
            values, weights = [0.0, 0.5, 1.0], [(1 - share) / 2, (1 - share) / 2, share]
        case _ if 0 < share < 1:
            values = np.sort(rng.beta(4 * share, 4 * (1 - share), _ATOMS)).tolist()
            weights = [1 / _ATOMS] * _ATOMS
        case _:
            values, weights = [share], [1.0]
    points = np.array(values) * 2 - 1 if signed else np.array(values)
    return Scores(
        values=points,
        limits=np.array([_normal(total) for total in np.cumsum(weights)[:-1]]),
        mean=float(points @ np.array(weights)),
        span=(-1.0, 1.0) if signed else (0.0, 1.0),
    )


def _normal(probability: float) -> float:
    if 0 < probability < 1:
        return NormalDist().inv_cdf(probability)
    return math.inf if probability >= 1 else -math.inf


@dataclass(frozen=True, kw_only=True)
class Situation:
    """An interval to be simulated, and what it should hold."""

    name: str
    truth: float
    draw: Callable[[int], Sequence[Interval]]
    """Returns as many intervals, each of data of its own."""


def means(found: Scores, n: int, count: int) -> list[Interval]:
    """Return intervals of the mean of ``n`` problems."""
    rows = np.sort(found.of(rng.standard_normal((count, n))))
    return _each(rows, lambda row: mean_interval(row, found.span))


def gains(old: Scores, new: Scores, correlation: float, n: int, count: int) -> list[Interval]:
    """Return intervals of the paired gain of ``n`` problems."""
    first = rng.standard_normal((count, n))
    second = correlation * first + math.sqrt(1 - correlation**2) * rng.standard_normal((count, n))
    before, after = old.of(first), new.of(second)
    order = np.lexsort((after, before))
    rows = np.hstack([np.take_along_axis(side, order, axis=1) for side in (before, after)])
    return _each(rows, lambda row: paired_gain(row[:n], row[n:], old.span))


def _each(rows: np.ndarray, interval: Callable[[list[float]], Interval]) -> list[Interval]:
    """Return the interval of each row; the problems are in order, so that equal data is looked at once."""
    known: dict[bytes, Interval] = {}
    result = []
    for row in rows:
        key = row.tobytes()
        if key not in known:
            known[key] = interval(row.tolist())
        result.append(known[key])
    return result


def situations(n: int) -> Iterator[Situation]:
    """Yield every situation with ``n`` problems per environment."""
    for kind in (*KINDS, *SIGNED):
        for share in SHARES:
            yield _combined(f"mean, {kind}, {share}", [scores(kind, share)], n)
    for before in SHARES:
        for after in (0.0, 0.02, 0.3, 0.5, 0.95, 1.0):
            for correlation in CORRELATIONS:
                yield _gain("binary", before, after, correlation, n)
    for kind in (*KINDS[1:], *SIGNED):
        for before, after in STEPS:
            for correlation in CORRELATIONS:
                yield _gain(kind, before, after, correlation, n)
    for share in SHARES:
        for levels in (
            (share, 0.5, 0.98, share),
            (0.0, 0.0, 0.0, share),
            (1.0, 1.0, 1.0, share),
            (0.0, 1.0, share),
        ):
            yield _combined(f"mean of environments, {levels}", [scores("binary", level) for level in levels], n)
        mixed = [scores(kind, share) for kind in ("binary", "half points", "signs and 0", "signed continuous")]
        yield _combined(f"mean of environments of four kinds, {share}", mixed, n)
        for steps in (
            ((share, 0.9), (0.02, share), (0.5, 0.5), (share, share)),
            ((0.0, 0.0), (1.0, 1.0), (0.0, share), (share, 1.0)),
        ):
            yield _combined_gain(share, steps, n)


def _gain(kind: str, before: float, after: float, correlation: float, n: int) -> Situation:
    old, new = scores(kind, before), scores(kind, after)
    return Situation(
        name=f"gain, {kind}, {before} to {after}, r {correlation}",
        truth=new.mean - old.mean,
        draw=functools.partial(gains, old, new, correlation, n),
    )


def _combined(name: str, levels: Sequence[Scores], n: int) -> Situation:
    def draw(count: int) -> list[Interval]:
        parts = [means(level, n, count) for level in levels]
        return parts[0] if len(parts) == 1 else [mean_of(together) for together in zip(*parts, strict=True)]

    return Situation(name=name, truth=fmean(level.mean for level in levels), draw=draw)


def _combined_gain(share: float, steps: Sequence[tuple[float, float]], n: int) -> Situation:
    def draw(count: int) -> list[Interval]:
        parts = [gains(scores("binary", old), scores("binary", new), 0.5, n, count) for old, new in steps]
        return [mean_of(together) for together in zip(*parts, strict=True)]

    truth = fmean(new - old for old, new in steps)
    return Situation(name=f"gain of environments, {share}, {steps}", truth=truth, draw=draw)


def main() -> None:
    """Simulate, print a line per size, the worst case, and those that fall short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=4000, help="intervals per situation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = []
    for n in SIZES:
        for situation in situations(n):
            drawn = situation.draw(options.repetitions)
            # Sums of equal parts are off by rounding where the truth is a limit itself, at 0 and 1.
            held = fmean(i.low - 1e-9 <= situation.truth <= i.high + 1e-9 for i in drawn)
            width = fmean(i.high - i.low for i in drawn)
            rows.append({"n": n, "case": situation.name, "coverage": held, "width": width})
    worst = min(rows, key=lambda row: row["coverage"])
    short = sorted((row for row in rows if row["coverage"] < LEAST), key=lambda row: row["coverage"])
    if options.json:
        print(json.dumps({"worst": worst, "least": LEAST, "short": short, "cases": rows}))
    else:
        for n in SIZES:
            covered = sorted(row["coverage"] for row in rows if row["n"] == n)
            print(f"n = {n}: {len(covered)} situations, coverage {covered[0]:.3f} to {covered[-1]:.3f}")
        print(f"worst: {worst['coverage']:.4f}, n = {worst['n']}, {worst['case']}; least allowed {LEAST}")
        for row in short:
            print(f"short: {row['coverage']:.4f}, n = {row['n']}, {row['case']}")
    sys.exit(bool(short))


if __name__ == "__main__":
    main()
