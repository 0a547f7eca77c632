"""How often the 95% intervals that envgym prints hold the true value, in simulation.

    python benchmarks/interval_coverage.py [--repetitions 4000] [--json]

Every interval that a table, a summary or a report shows: means and paired gains, binary, averaged over samples,
and continuous, alone and combined over environments. Exits with 1 if one covers less than 93%.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from envgym.evaluate import Interval, mean_interval, mean_of, paired_gain

SIZES = (20, 64, 100)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99)
LEAST = 0.93
Draw = Callable[[], tuple[Interval, float]]
"""One simulated interval, with the value that it should hold."""

rng = np.random.default_rng(0)


def scores(kind: str, share: float, n: int) -> np.ndarray:
    """Draw one score per problem with mean ``share``."""
    match kind:
        case "binary":
            return (rng.random(n) < share).astype(float)
        case "mean of 4":
            return rng.binomial(4, share, n) / 4
        case "half points":
            return np.where(rng.random(n) < share, rng.choice([0.5, 1.0], n), 0.0)
        case _:
            return rng.beta(4 * share, 4 * (1 - share), n)


def truth(kind: str, share: float) -> float:
    """Return the mean of ``scores``."""
    return 0.75 * share if kind == "half points" else share


def pairs(before: float, after: float, correlation: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw correlated binary scores of the same problems."""
    first = rng.standard_normal(n)
    second = correlation * first + np.sqrt(1 - correlation**2) * rng.standard_normal(n)
    limits = [NormalDist().inv_cdf(share) for share in (before, after)]
    return (first < limits[0]).astype(float), (second < limits[1]).astype(float)


def cases(n: int) -> Iterator[tuple[str, Draw]]:
    """Yield every situation with ``n`` problems per environment."""
    for kind in ("binary", "mean of 4", "half points", "continuous"):
        for share in SHARES:
            yield f"mean, {kind}, {share}", _mean(kind, share, n)
    for before in SHARES:
        for after in (0.02, 0.3, 0.5, 0.95):
            for correlation in (0.0, 0.6):
                yield f"gain, binary, {before} to {after}, r {correlation}", _gain(before, after, correlation, n)
    for before, after in ((0.02, 0.05), (0.1, 0.6), (0.5, 0.5), (0.05, 0.95), (0.97, 0.99)):
        for kind in ("mean of 4", "half points", "continuous"):
            yield f"gain, {kind}, {before} to {after}", _plain_gain(kind, before, after, n)
    for share in SHARES:
        yield f"mean of 4 environments, {share}", _overall(share, n)
        yield f"gain of 4 environments, {share}", _overall_gain(share, n)


def _mean(kind: str, share: float, n: int) -> Draw:
    return lambda: (mean_interval(scores(kind, share, n).tolist()), truth(kind, share))


def _gain(before: float, after: float, correlation: float, n: int) -> Draw:
    def draw() -> tuple[Interval, float]:
        old, new = pairs(before, after, correlation, n)
        return paired_gain(old.tolist(), new.tolist()), after - before

    return draw


def _plain_gain(kind: str, before: float, after: float, n: int) -> Draw:
    def draw() -> tuple[Interval, float]:
        old, new = scores(kind, before, n), scores(kind, after, n)
        return paired_gain(old.tolist(), new.tolist()), truth(kind, after) - truth(kind, before)

    return draw


def _overall(share: float, n: int) -> Draw:
    levels = (share, 0.5, 0.98, share)

    def draw() -> tuple[Interval, float]:
        parts = [mean_interval(scores("binary", level, n).tolist()) for level in levels]
        return mean_of(parts), sum(levels) / len(levels)

    return draw


def _overall_gain(share: float, n: int) -> Draw:
    steps = ((share, 0.9), (0.02, share), (0.5, 0.5), (share, share))

    def draw() -> tuple[Interval, float]:
        drawn = [pairs(*step, 0.5, n) for step in steps]
        parts = [paired_gain(old.tolist(), new.tolist()) for old, new in drawn]
        return mean_of(parts), sum(after - before for before, after in steps) / len(steps)

    return draw


def main() -> None:
    """Simulate, print a line per size and kind, and the worst case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=4000, help="intervals per situation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = []
    for n in SIZES:
        for name, draw in cases(n):
            drawn = [draw() for _ in range(options.repetitions)]
            held = sum(interval.low <= value <= interval.high for interval, value in drawn) / len(drawn)
            width = sum(interval.high - interval.low for interval, _ in drawn) / len(drawn)
            rows.append({"n": n, "case": name, "coverage": held, "width": width})
    worst = min(rows, key=lambda row: row["coverage"])
    if options.json:
        print(json.dumps({"worst": worst, "least": LEAST, "cases": rows}))
    else:
        for n in SIZES:
            covered = sorted(row["coverage"] for row in rows if row["n"] == n)
            print(f"n = {n}: {len(covered)} situations, coverage {covered[0]:.3f} to {covered[-1]:.3f}")
        print(f"worst: {worst['coverage']:.4f}, n = {worst['n']}, {worst['case']}; least allowed {LEAST}")
    sys.exit(worst["coverage"] < LEAST)


if __name__ == "__main__":
    main()
