"""What a run warns of: episodes that did not complete, and steps without a signal."""

from __future__ import annotations

from envgym.evaluate import EnvScores
from envgym_trainers.stages.doubts import no_signal, share_warnings, training_warnings


def test_more_than_a_fifth_of_the_episodes_is_too_many() -> None:
    rows = [{"ended/sums/completed": 8, "ended/sums/truncated: tokens": cut} for cut in (2, 3)]
    assert list(training_warnings(rows[:1])) == []
    assert list(training_warnings(rows[1:])) == ["sums, training: 27% cut: tokens"]


def test_evaluations_are_watched_as_well() -> None:
    fine, bad = EnvScores(ended={"completed": 10}), EnvScores(ended={"completed": 6, "failed: SandboxError": 4})
    after = {"greedy": {"code": bad}, "sampled": {"code": fine}}
    assert list(share_warnings(None, after)) == ["code, greedy, after training: 40% failed: SandboxError"]


def test_a_step_without_a_signal_says_why() -> None:
    row = {"groups/sums/kept": 0, "groups/sums/all_solved": 3, "groups/sums/all_failed": 1}
    assert no_signal(row, "sums") == "3 groups all solved, 1 groups all failed"
    assert no_signal({**row, "groups/sums/kept": 1}, "sums") == ""
    assert no_signal({}, "sums") == ""
    silent = {**row, "ended/sums/completed": 32}
    assert list(training_warnings([silent])) == [
        "sums: no group had a signal in 1 of 1 steps (at last: 3 groups all solved, 1 groups all failed)"
    ]
