"""What a report needs of the JSON files that a run keeps; they may hold more."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

__all__ = ["Best", "ControlsRecord", "MetricsRow", "Requested", "Summary"]

Count = Annotated[int, pydantic.Field(ge=0, lt=2**53)]
Number = Annotated[int, pydantic.Field(gt=-(2**63), lt=2**63)] | float


class _Stored(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Interval(_Stored):
    mean: Number | None
    low: Number | None
    high: Number | None
    n: Count

    @pydantic.model_validator(mode="after")
    def _whole(self) -> _Interval:
        if self.mean is not None and (self.low is None or self.high is None):
            raise ValueError("an interval has a mean and no ends")
        return self


class _Part(_Stored):
    before: _Interval | None = None
    after: _Interval


class _Measured(_Part):
    gain: _Interval | None = None
    parts: dict[str, _Part] = {}
    ended: dict[str, dict[str, Count]] = {}


class Best(_Stored):
    """``checkpoints/best/best.json``, and a part of a summary."""

    step: Count
    reward: Number


class Summary(_Stored):
    """``summary.json``."""

    environments: dict[str, Any]
    overall: Any = None
    decodings: dict[str, Number] | None = None
    best: Best | None = None
    left_out: dict[str, str] = {}
    warnings: list[str] = []

    @pydantic.model_validator(mode="after")
    def _measured(self) -> Summary:
        records = dict(self.environments)
        if "overall" in self.model_fields_set:
            records["overall"] = self.overall
        for label, record in records.items():
            if not isinstance(record, dict):
                raise ValueError(f"{label}: is not an object")
            for decoding in self.decodings if self.decodings is not None else ("",):
                _Measured.model_validate(record.get(decoding) if decoding else record)
        return self


class MetricsRow(_Stored):
    """A row of ``metrics.jsonl``: a step, and numbers."""

    step: Count
    __pydantic_extra__: dict[str, Number | None]


class Requested(_Stored):
    """``controls/requested.json``."""

    controls: list[str]


class _Gained(_Stored):
    after: _Interval
    gain: _Interval


class _Row(_Stored):
    overall: dict[str, _Gained]
    learning_rate: Number


class _Level(_Stored):
    overall: _Interval


class _Start(_Stored):
    best: str
    temperatures: dict[str, _Level]


class _Judged(_Stored):
    gain: _Interval
    best_control: str
    control_gain: _Interval
    share: Number | None
    over_control: _Interval
    over_start: _Interval


class _Verdict(_Stored):
    decodings: dict[str, _Judged]
    explained: str
    because: list[str]


class ControlsRecord(_Stored):
    """``controls.json``."""

    rows: dict[str, _Row]
    best_of_start: _Start
    not_run: dict[str, str]
    verdict: _Verdict

    @pydantic.model_validator(mode="after")
    def _complete(self) -> ControlsRecord:
        missing = {"0", self.best_of_start.best} - self.best_of_start.temperatures.keys()
        for row in self.rows.values():
            missing |= self.verdict.decodings.keys() - row.overall.keys()
        if missing:
            raise ValueError(f"{min(missing)}: is missing")
        return self
