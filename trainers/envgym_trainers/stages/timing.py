"""What the steps of a run take, and how far the one at hand is."""

from __future__ import annotations

import time

from envgym.runs.progress import Status, duration
from envgym_trainers.engine.interface import Engine
from envgym_trainers.stages.asynchronous import AsynchronousSource
from envgym_trainers.stages.setup import TrainingSetup
from envgym_trainers.stages.steps import Phase, Source, Step

__all__ = ["StepWork", "status_of"]


class StepWork:
    """Measures one step, from before it to after it.

    In asynchronous training the engine samples for several steps at once, and for evaluations between them: tokens
    are then those of the groups that have ended since the step before.
    """

    def __init__(self, engine: Engine, source: Source) -> None:
        self._engine = engine
        self._asynchronous = isinstance(source, AsynchronousSource)
        self._earlier = engine.statistics()

    def done(self, step: Step) -> dict[str, float]:
        """Return times, rates and numbers of tokens of the step, for its row of metrics."""
        seconds = step.sampling_seconds + step.learning_seconds
        if self._asynchronous:
            lengths = step.collected.turn_tokens
            tokens, completions, within = sum(lengths), len(lengths), seconds
        else:
            work = self._engine.statistics()
            tokens = work.sampled_tokens - self._earlier.sampled_tokens
            completions, within = work.completions - self._earlier.completions, step.sampling_seconds
        return {
            "seconds": seconds,
            "sampling_seconds": step.sampling_seconds,
            "learning_seconds": step.learning_seconds,
            "overlap_seconds": step.overlap_seconds,
            "sampled_tokens": tokens,
            "tokens_per_second": tokens / within,
            "episode_seconds_max": max((t.seconds for t in step.collected.trajectories), default=0.0),
            "completion_tokens_mean": tokens / max(1, completions),
        }


def status_of(phase: Phase, setup: TrainingSetup, source: Source, episodes: int) -> Status:
    """Return a status of a phase that begins now, in a step of so many ``episodes``."""
    began, collector = time.monotonic(), setup.collector

    def learning() -> str:
        return f"learning for {duration(time.monotonic() - began)}"

    if not isinstance(source, AsynchronousSource):
        return learning if phase == "learning" else setup.episodes_status(episodes)
    tokens = setup.tokens_status()

    def status() -> str:
        what = learning() if phase == "learning" else f"waiting for {duration(time.monotonic() - began)}"
        return f"{what}, {collector.in_flight} episodes in flight, {source.ready} groups ready, {tokens()}"

    return status
