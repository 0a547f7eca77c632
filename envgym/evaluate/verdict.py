"""Judge a gain against its rivals: runs under control rewards, and the start model decoded well.

Every choice favours the rivals: the best control is picked by the scores that are reported, and so is the best
temperature of the start model.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envgym.evaluate.intervals import Interval, mean_of
from envgym.evaluate.run import EnvScores

__all__ = ["Contender", "Explained", "advantage", "judge", "level"]

Scores = Mapping[str, EnvScores]
"""Held-out scores by environment."""

_MOST = 0.5
_LITTLE = 0.2


class Explained(enum.StrEnum):
    """Answers to whether something else than the reward explains a gain, from the best to the worst."""

    NO = "no"
    IN_PART = "in part"
    YES = "yes"
    NO_GAIN = "there is no gain to explain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A run's held-out scores before and after, by the way of decoding."""

    before: Mapping[str, Scores]
    after: Mapping[str, Scores]

    def gain(self, decoding: str) -> Interval:
        """Return the overall gain, paired by task."""
        return advantage(self.before[decoding], self.after[decoding])

    def as_dict(self) -> dict[str, Any]:
        """Return the intervals before and after, and of the gain, by decoding: ``overall``, ``environments``."""
        return {
            "overall": {
                decoding: {
                    "before": _mean(self.before[decoding]).as_dict(),
                    "after": _mean(after).as_dict(),
                    "gain": self.gain(decoding).as_dict(),
                }
                for decoding, after in self.after.items()
            },
            "environments": {
                label: {d: _of_environment(self.before[d][label], after[label]) for d, after in self.after.items()}
                for label in next(iter(self.after.values()))
            },
        }


def advantage(old: Scores, new: Scores) -> Interval:
    """Return the mean over environments of the reward of ``new`` less that of ``old``, paired by task."""
    return mean_of([scores.gain_over(old[label]) for label, scores in new.items()])


def level(scores: Scores) -> dict[str, Any]:
    """Return the interval of the mean reward as JSON values: ``overall``, ``environments``."""
    environments = {label: found.interval().as_dict() for label, found in scores.items()}
    return {"overall": _mean(scores).as_dict(), "environments": environments}


def judge(trained: Contender, controls: Mapping[str, Contender], start: Scores) -> dict[str, Any]:
    """Compare a trained policy with its rivals, for each way of decoding.

    Args:
        trained: the run under the true reward.
        controls: every run under a control, at least one.
        start: the start model at its best temperature.

    Returns:
        JSON values: ``decodings``, with the gain, the best control, its gain and share of the gain, and what the
        trained policy has over that control and over ``start``; ``explained``; and ``because``, in words.
    """
    decodings: dict[str, dict[str, Any]] = {}
    answers: list[Explained] = []
    because: list[str] = []
    for decoding in trained.after:
        gain = trained.gain(decoding)
        best = max(controls, key=lambda name: controls[name].gain(decoding).mean)
        control_gain = controls[best].gain(decoding)
        over_control = advantage(controls[best].after[decoding], trained.after[decoding])
        over_start = advantage(start, trained.after[decoding])
        share = max(0.0, control_gain.mean) / gain.mean if gain.mean > 0 else None
        answer, reason = _answer(gain, best, share, over_control, over_start)
        answers.append(answer)
        because.append(f"{decoding}: {reason}")
        decodings[decoding] = {
            "gain": gain.as_dict(),
            "best_control": best,
            "control_gain": control_gain.as_dict(),
            "share": share,
            "over_control": over_control.as_dict(),
            "over_start": over_start.as_dict(),
            "explained": answer.value,
        }
    order = list(Explained)
    gains = [answer for answer in answers if answer is not Explained.NO_GAIN]
    worst = max(gains, key=order.index, default=Explained.NO_GAIN)
    return {"decodings": decodings, "explained": worst.value, "because": because}


def _answer(
    gain: Interval, best: str, share: float | None, over_control: Interval, over_start: Interval
) -> tuple[Explained, str]:
    if share is None or not gain.low > 0:
        return Explained.NO_GAIN, f"the trained policy's gain is not above 0: {gain}"
    if not over_control.low > 0:
        return Explained.YES, f"the trained policy is not above the one trained on {best}: {over_control}"
    if not over_start.low > 0:
        return Explained.YES, f"it is not above the start model at its best temperature: {over_start}"
    words = f"{best} gains {share:.0%} of it"
    if share > _MOST:
        return Explained.YES, words
    return (Explained.IN_PART if share > _LITTLE else Explained.NO), words


def _mean(scores: Scores) -> Interval:
    return mean_of([found.interval() for found in scores.values()])


def _of_environment(before: EnvScores, after: EnvScores) -> dict[str, Any]:
    return {
        "before": before.interval().as_dict(),
        "after": after.interval().as_dict(),
        "gain": after.gain_over(before).as_dict(),
    }
