"""The words that pass between the stages: Window, FeatureVector, Score, AlarmEvent, Record. Frozen, no I/O.

A stage knows these words, not its neighbours; only app.py knows the order of the stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Mode(StrEnum):
    """What a machine is doing; baselines belong to RUNNING and its speed bin (ISO 17359, operating conditions)."""

    UNKNOWN = "unknown"
    OFF = "off"
    STARTING = "starting"
    RUNNING = "running"
    COASTING = "coasting"


@dataclass(frozen=True, slots=True)
class OperatingState:
    """Mode, and while running the speed bin in tenths of rated speed (10 is rated speed; 0 where speed is not known)."""

    mode: Mode
    speed_bin: int = 0

    @property
    def key(self) -> str:
        """The name a baseline is kept under: "running:10"."""
        return f"{self.mode}:{self.speed_bin}" if self.mode is Mode.RUNNING else str(self.mode)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Under what a window was taken. NaN where no sensor tells.

    Attributes:
        speed_age_s: of the speed reading. speed_spread_ratio: how far its last readings lie apart, over their mean.
    """

    shaft_speed_rpm: float = float("nan")
    line_frequency_hz: float = float("nan")
    active_power_kw: float = float("nan")
    speed_age_s: float = 0.0
    speed_spread_ratio: float = 0.0


class Covariates(NamedTuple):
    """What normal depends on within one operating state; NaN where no sensor tells. `load`: in its own channel's unit."""

    shaft_speed_rpm: float
    load: float
    ambient_degc: float


NO_COVARIATES = Covariates(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The aligned burst of one sensor of one machine: all axes of one burst id, and the operating point beside it.

    Attributes:
        machine: the machine's tag. sensor: the sensor's name. axes: as many as samples has rows.
        samples: shape (n_axes, n_samples), m/s2.
        utc_ns: start of the burst. arrived_monotonic_ns: when its last byte arrived (latency is counted from here).
    """

    machine: str
    sensor: str
    axes: tuple[str, ...]
    samples: F32
    sample_rate_hz: float
    burst_id: int
    utc_ns: int
    arrived_monotonic_ns: int
    point: OperatingPoint
    clipped: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FeatureVector:
    """One machine's columns at one instant, in physical units.

    Attributes:
        values: shape (n_columns,), float32; NaN where `present` is False.
        present: shape (n_columns,), which columns were measured with usable quality.
        digest: the FeatureSet's; a model with another digest must not see it.
        covariates: under what it was measured.
    """

    machine: str
    state: OperatingState
    values: F32
    present: Mask
    digest: str
    utc_ns: int
    arrived_monotonic_ns: int
    covariates: Covariates = NO_COVARIATES


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """What the model says of one vector: higher is more anomalous, always.

    Attributes:
        value: >= 0, the sum of the contributions of the columns that are present.
        contributions: shape (n_columns,), >= 0, computed inside the model's own graph.
        deviations: shape (n_columns,), the vector referred to the machine's baseline, in robust standard deviations.
        threshold: what `value` may reach on a healthy machine within the site's false-alarm budget.
        unsmoothed: `value` before the site's averaging; the same where it does not average.
    """

    machine: str
    value: float
    threshold: float
    contributions: F32
    deviations: F32
    present: Mask
    utc_ns: int
    unsmoothed: float = float("nan")


class Severity(StrEnum):
    """Four words, never a number (ux: the phone at 3 a.m.); NO_DATA is its own class, never shown as healthy."""

    CRIT = "crit"
    HIGH = "high"
    LOW = "low"
    INFO = "info"
    NO_DATA = "no_data"


class AlarmClass(StrEnum):
    """What raised it. A sensor fault mutes the machine verdict: "not watched" is never shown as healthy."""

    MODEL = "model"  # the score of the machine's vector
    LIMIT = "limit"  # a fast protective limit
    SENSOR = "sensor"  # the measurement itself is not to be believed


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was seen: what, where it stands, where it normally stands, where the limit is."""

    feature: str  # column name, e.g. "de.envelope.bpfo_ratio" or a channel's point
    words: str  # "envelope line at the outer race (73.6 Hz), motor drive end"
    value: float
    normal: float | None
    limit: float | None
    unit: str
    share: float  # of the score, 0..1; 1 for a limit or a sensor fault
    frequency_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """A likely fault with its confidence (0..1) and the evidence for and against, in words."""

    fault: str
    words: str
    confidence: float
    evidence_for: tuple[str, ...] = ()
    evidence_against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a rising quantity reaches its limit, if operation stays as it is: in 10, 50 and 90 of 100 cases by then.

    Attributes: feature: the column whose limit it is. limit: in its unit.
    """

    feature: str
    limit: float
    p10_h: float
    p50_h: float
    p90_h: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an alarm stands and what to do about it; everything a person needs, no model words.

    Attributes: tell_apart: what would tell the likely cause from the runner-up, "" where there is none.
    """

    evidence: tuple[Evidence, ...]
    causes: tuple[Cause, ...]  # ranked; a limit names its one cause for certain, a sensor fault none
    action: str
    act_within_h: float | None
    data_quality: str
    operating_state: str = ""  # what the machine was doing, e.g. "running:10"
    tell_apart: str = ""
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One immutable transition of one alarm (ISA-18.2): the thing stored and sent.

    Attributes:
        alarm_id: stable over the alarm's life, derived from machine, condition and first time: a replay gives the same.
        condition: what the alarm is about, e.g. "model", "limit:dry_run", "sensor:vib-a:stuck"; one alarm a condition.
        state: ISA-18.2 state after the transition. trigger: what caused it.
        onset_utc_ns: when the condition first showed. utc_ns: when this transition was decided. Neither is ever rewritten.
        text: the whole message in words.
        standing_s: how long the condition had been there, on the monotonic clock.
        clock: "unset" where one of the times is of a clock that was not set.
    """

    alarm_id: str
    code: str
    machine: str
    condition: str
    alarm_class: AlarmClass
    severity: Severity
    state: str
    previous_state: str
    trigger: str
    onset_utc_ns: int
    utc_ns: int
    explanation: Explanation
    text: str
    model: Mapping[str, str] = field(default_factory=dict)
    standing_s: float = 0.0
    clock: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Something to be kept: the store gives it its key (gateway, stream, sequence) in the transaction that writes it.

    Attributes:
        stream: "alarm", "clock", "baseline", "feature", "burst" or "sample"; the order in which they leave is deliver.py's.
        payload: mapping of what JSON can say, and bytes in bursts and samples.
        urgent: commit at once, durably (alarms).
        upstream: goes to the outbox.
    """

    stream: str
    machine: str
    utc_ns: int
    payload: Mapping[str, Any] | bytes
    urgent: bool = False
    upstream: bool = True
    arrived_monotonic_ns: int = 0
