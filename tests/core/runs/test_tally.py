"""A line of progress says what was earned, what was cut and what was lost."""

from __future__ import annotations

from envgym.records import Outcome, Score, Task, Trajectory
from envgym.runs.tally import Tally


def _episode(env: str, outcome: Outcome, reward: float = 0.0) -> Trajectory:
    score = None if outcome.kind == "failed" else Score(value=reward, accuracy=reward)
    return Trajectory(env=env, task=Task(id="t", split="train", messages=()), outcome=outcome, score=score)


def test_the_line_by_hand() -> None:
    """Means leave out what failed; shares are of all episodes of the environment."""
    tally = Tally()
    assert str(tally) == ""
    tally.add(_episode("sums", Outcome.completed(), 1.0))
    assert str(tally) == "sums 1.00"
    tally.add(_episode("sums", Outcome.truncated("tokens"), 0.5))
    tally.add(_episode("sums", Outcome.truncated("turns"), 0.0))
    tally.add(_episode("sums", Outcome.failed(OSError("gone: for good"))))
    tally.add(_episode("code", Outcome.failed(ValueError("x"))))
    assert (
        str(tally)
        == "code - (100% failed: ValueError) sums 0.50 (25% failed: OSError, 25% cut: tokens, 25% cut: turns)"
    )
