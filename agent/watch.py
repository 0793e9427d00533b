"""MachineWatch: one machine's way from measurements to conditions. Plain calls, no threads, no files, time passed in.

state -> vector -> baseline -> score -> condition, with the protective limits beside it. What it finds it says as
`Condition`s that begin or end; the alarm book (decision/alarm.py) makes events of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from agent.baseline import Baseline, Learner, reference_floor, reference_score
from agent.budget import LatencyBudget, Level
from agent.config import DecisionSection, Machine
from agent.decision.alarm import Condition
from agent.decision.threshold import Change, ConditionTracker, LimitChange, LimitWatch, probability_per_decision
from agent.diagnosis import Diagnosis
from agent.features import ABSENT, Cores
from agent.features.kurtogram import Kurtogram
from agent.inference.bundle import Bundle
from agent.machine import Limit
from agent.state import StateTracker
from agent.tagbank import TagBank
from agent.vocabulary import (
    F32,
    AlarmClass,
    FeatureVector,
    Mode,
    OperatingPoint,
    OperatingState,
    Record,
    Score,
    Severity,
    Window,
)
from firmware_bridge.measurement import Channel

MONTH_S = 30 * 86_400.0
MODEL_CONDITION = "model"
NOT_LEARNED = "not_learned"  # the limit that keeps a sick machine from becoming its own normal
VELOCITY = "spectrum.velocity_rms_mm_s"
MIN_SHARE_PRESENT = 0.5  # of the baseline's columns; with fewer there is no verdict
N_AXES = 3  # the velocity column adds axes: above sqrt(3) times a zone's boundary one axis is beyond it for certain
BAND_WINDOWS = 10  # that a machine's own envelope band is chosen from
N_SIGMA_SPREAD = 4.0  # standard deviations from the smallest of some readings to the largest
EXCURSION_LIMIT = 3.0  # a smoothed score takes at most this many thresholds from one decision, so that it can come back


@dataclass(slots=True)
class Findings:
    """What one step brought: records to keep, conditions that began or ended, baselines to save."""

    records: list[Record] = field(default_factory=list)
    began: list[Condition] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # names of conditions
    baselines: list[tuple[str, Baseline]] = field(default_factory=list)  # by state key


class MachineWatch:
    """Watches one machine.

    Args:
        bundle: its model, already checked at the door. budget: where stage timings go and which level of work holds.
        false_alarms_per_month: of this machine, as the site states.
    """

    def __init__(
        self,
        machine: Machine,
        bundle: Bundle,
        decision: DecisionSection,
        false_alarms_per_month: float,
        diagnosis: Diagnosis,
        budget: LatencyBudget,
        channels: Sequence[Channel],
        baselines: Mapping[str, Baseline] | None = None,
    ) -> None:
        self.machine = machine
        self._sensor_of = {index: channels[index].sensor for index in machine.roles.values()}
        self.bundle = bundle
        self.budget = budget
        self._decision = decision
        self._false_alarms_per_month = false_alarms_per_month
        self._diagnosis = diagnosis
        features = machine.features
        self._transforms = tuple(column.transform for column in features.columns)
        self._learner = Learner(machine.spec.learn_windows, self._transforms, machine.scale_floors)
        shipped = {
            key: kept.as_baseline(machine.features.digest)
            for key, kept in bundle.manifest.baselines.get(machine.tag, {}).items()
        }
        saved = {
            key: baseline for key, baseline in (baselines or {}).items() if baseline.digest == machine.features.digest
        }
        self._cores = Cores(features.plan_at)
        known = next(iter([*saved.values(), *shipped.values()]), None)
        self._take_envelope_band(known.envelope_band_hz if known is not None else None)
        self.baselines: dict[str, Baseline] = {
            key: baseline
            for key, baseline in {**shipped, **saved}.items()
            if baseline.envelope_band_hz
            == self._envelope_band_hz  # measured in another band, it is no normal of this one
        }
        undecided = known is None and features.n_samples > 0
        self._kurtogram = Kurtogram(features.n_samples, features.sample_rate_hz) if undecided else None
        self._tracker = ConditionTracker(k=decision.k, m=decision.m, off_delay_s=decision.off_delay_s)
        self._limits = LimitWatch(machine.profile.limits)
        self._sick_mm_s = machine.profile.zone_bc_mm_s * math.sqrt(N_AXES)
        self._sick = Limit(name=NOT_LEARNED, channel="velocity_rms_mm_s", fault="high_vibration", above=self._sick_mm_s)
        self._sick_tracker = ConditionTracker(k=decision.k, m=decision.m)
        self._states = StateTracker(
            machine.state_rule, machine.nameplate.rated_speed_rpm, assume_running=machine.spec.assume_running
        )
        self._tag_statistics = [
            (name, statistic, machine.roles[channel])
            for name, (channel, statistic) in features.statistics.items()
            if channel in machine.roles
        ]
        self._point = OperatingPoint()  # of the last vector
        self._burst_before: list[Record] = []  # packed: an alarm carries it too
        self._smoothed: F32 | None = None
        self._smoothed_ns = 0
        self._cadence = Cadence()
        self._decided_ns: int | None = None
        self._told: set[str] = set()  # causes that the standing alarm has named
        self._candidate, self._n_candidate = "", 0
        self.state = OperatingState(Mode.UNKNOWN)
        self.last_score: Score | None = None
        self.last_values: dict[str, float] = {}
        self._from_windows: dict[str, float] = {}

    # ------------------------------------------------------------------ what comes in
    def on_tags(self, tags: TagBank, muted: frozenset[str], monotonic_ns: int, utc_ns: int) -> Findings:
        """After a block of one of its sensors: state and limits; and the verdict, when no burst brings it."""
        found = Findings()
        values = self._current_values(tags, muted)
        self.last_values = {**values, **self._from_windows}
        point = self.operating_point(tags, monotonic_ns)
        self.state = self._states.step(point.shaft_speed_rpm, point.active_power_kw, monotonic_ns)
        self._check_limits(values, monotonic_ns, utc_ns, found)
        if not self.machine.burst_sensors and self._is_due(monotonic_ns):
            self._judge(None, tags, muted, monotonic_ns, utc_ns, found)
        return found

    def on_window(self, window: Window, tags: TagBank, muted: frozenset[str], utc_ns: int) -> Findings:
        """After a whole burst: features, score, verdict."""
        found = Findings()
        if self.budget.level >= Level.LIMITS_ONLY:
            self.budget.count_shed("window")
            return found
        self._look_for_envelope_band(window)
        self._judge(window, tags, muted, window.arrived_monotonic_ns, utc_ns, found)
        self._keep_burst(window, found)
        return found

    def _keep_burst(self, window: Window, found: Findings) -> None:
        """An alarm carries its own burst and the one before it; until then one burst waits, packed."""
        burst = burst_records(window) if np.isfinite(window.samples).all() else []
        if any(condition.name == MODEL_CONDITION for condition in found.began):
            found.records += self._burst_before + burst
            burst = []
        self._burst_before = burst

    def operating_point(self, tags: TagBank, monotonic_ns: int) -> OperatingPoint:
        """Under what its bursts are taken now: speed, supply frequency and power; NaN where none tells."""
        rule, values = self.machine.profile.state, self.last_values
        frequency_hz = values.get("output_frequency_hz", values.get("line_frequency_hz", math.nan))
        speed_rpm, power_kw = (values.get(channel, math.nan) for channel in (rule.speed_channel, rule.power_channel))
        if not speed_rpm > 0:
            return OperatingPoint(speed_rpm, frequency_hz, power_kw)
        at = self.machine.roles[rule.speed_channel]
        age_s = float(tags.silent_s(monotonic_ns, slice(at, at + 1))[0])
        spread_rpm = N_SIGMA_SPREAD * float(tags.std(slice(at, at + 1))[0])
        return OperatingPoint(speed_rpm, frequency_hz, power_kw, age_s, spread_rpm / speed_rpm)

    # ------------------------------------------------------------------ vector, score, verdict
    def _judge(
        self,
        window: Window | None,
        tags: TagBank,
        muted: frozenset[str],
        monotonic_ns: int,
        utc_ns: int,
        found: Findings,
    ) -> None:
        started = perf_counter()
        vector = self._vector(window, tags, muted, monotonic_ns, utc_ns)
        self.budget.record("features", perf_counter() - started)
        score = self._score(vector, monotonic_ns, found)
        if window is not None:
            self._note_velocity(vector)
        found.records.append(self._feature_record(vector, score, window))
        started = perf_counter()
        self._decide(vector, score, monotonic_ns, utc_ns, found)
        self.budget.record("decision", perf_counter() - started)

    def _vector(
        self, window: Window | None, tags: TagBank, muted: frozenset[str], monotonic_ns: int, utc_ns: int
    ) -> FeatureVector:
        statistics = self._statistics(tags, muted, monotonic_ns)
        values, present = self.machine.features.compute(window, statistics, self.machine.nameplate, self._cores)
        self._point = self._cores.point if window is not None else self.operating_point(tags, monotonic_ns)
        return FeatureVector(
            machine=self.machine.tag,
            state=self.state,
            values=values,
            present=present,
            digest=self.machine.features.digest,
            utc_ns=window.utc_ns if window is not None else utc_ns,
            arrived_monotonic_ns=monotonic_ns,
        )

    def _score(self, vector: FeatureVector, monotonic_ns: int, found: Findings) -> Score | None:
        """The score where there is a baseline for this state; else learn, when the machine may be learned from."""
        if vector.state.mode is not Mode.RUNNING:
            self._smoothed = None
            return None
        self._cadence.tick(vector.arrived_monotonic_ns)
        baseline = self.baselines.get(vector.state.key)
        if baseline is None:
            self._learn(vector, found)
            return None
        if self.budget.level >= Level.NO_MODEL:
            self.budget.count_shed("score")
            return None
        started = perf_counter()
        score = self._scored(vector, baseline, monotonic_ns)
        self.budget.record("inference", perf_counter() - started)
        self.last_score = score
        return score

    def _scored(self, vector: FeatureVector, baseline: Baseline, monotonic_ns: int) -> Score | None:
        z, judged = baseline.refer(vector.values, vector.present, self._transforms)
        n_known = int(np.isfinite(baseline.location).sum())
        if judged.sum() < MIN_SHARE_PRESENT * n_known:
            return None
        _, contributions = self.bundle.score(z, judged.astype(np.float32))
        threshold = baseline.reference_score * self._threshold_factor()
        contributions = self._smooth(contributions, threshold, monotonic_ns)
        return Score(
            machine=self.machine.tag,
            value=float(contributions.sum()),
            threshold=threshold,
            contributions=contributions,
            deviations=z,
            present=judged,
            utc_ns=vector.utc_ns,
        )

    def _smooth(self, contributions: F32, threshold: float, monotonic_ns: int) -> F32:
        """Exponential average of the contributions where the site asks for it; one excursion counts for a bounded amount."""
        if self._decision.smooth_s <= 0:
            return contributions
        total = float(contributions.sum())
        limited = contributions * min(1.0, EXCURSION_LIMIT * threshold / total) if total > 0 else contributions
        self._smoothed = _averaged(
            self._smoothed, limited, (monotonic_ns - self._smoothed_ns) / 1e9, self._decision.smooth_s
        )
        self._smoothed_ns = monotonic_ns
        return self._smoothed

    def _threshold_factor(self) -> float:
        """How many times its upper normal score a healthy machine may reach within the site's budget of false alarms."""
        if self._decision.threshold_factor is not None:
            return self._decision.threshold_factor
        per_month = MONTH_S / self._cadence.interval_s
        k, m = self._decision.k, self._decision.m
        probability = probability_per_decision(self._false_alarms_per_month, per_month, k, m)
        return self.bundle.manifest.tail.quantile(probability)

    # ------------------------------------------------------------------ learning
    def _take_envelope_band(self, band_hz: tuple[float, float] | None) -> None:
        self._envelope_band_hz = band_hz
        self._cores.change(partial(self.machine.features.plan_at, envelope_band_hz=band_hz))

    def _look_for_envelope_band(self, window: Window) -> None:
        """The first windows of a running machine say where it rings; where they do, learning begins anew in that band.

        Once in a machine's life: the band is kept with its baselines, and with it what "normal" means.
        """
        if self._kurtogram is None or window.clipped or self.state.mode is not Mode.RUNNING:
            return
        if window.samples.shape[1] != self.machine.features.n_samples or not np.isfinite(window.samples).all():
            return
        self._kurtogram.add(window.samples)
        if len(self._kurtogram) < BAND_WINDOWS * len(window.samples):
            return
        band_hz = self._kurtogram.band_hz()
        self._kurtogram = None
        if band_hz is not None:
            self._take_envelope_band(band_hz)
            self._learner.forget()

    def _learn(self, vector: FeatureVector, found: Findings) -> None:
        if not vector.present.any() or self._is_sick(vector, found):
            return
        complete = self._learner.offer(vector)
        if complete is None:
            return
        self._kurtogram = None  # from here on there is a normal, in the band that it was measured in
        baseline = self._learner.fit(complete)
        baseline = replace(
            baseline,
            reference_score=self._reference(complete, baseline),
            envelope_band_hz=self._envelope_band_hz,
        )
        self.baselines[vector.state.key] = baseline
        found.baselines.append((vector.state.key, baseline))

    def _reference(self, vectors: list[FeatureVector], baseline: Baseline) -> float:
        """The upper normal score: of the learning windows, scored and smoothed just as later ones will be."""
        smoothed: F32 | None = None
        previous_ns, scores = 0, []
        for vector in vectors:
            z, judged = baseline.refer(vector.values, vector.present, self._transforms)
            _, contributions = self.bundle.score(z, judged.astype(np.float32))
            if self._decision.smooth_s > 0:
                elapsed_s = (vector.arrived_monotonic_ns - previous_ns) / 1e9
                smoothed = _averaged(smoothed, contributions, elapsed_s, self._decision.smooth_s)
                contributions = smoothed
            previous_ns = vector.arrived_monotonic_ns
            scores.append(float(contributions.sum()))
        self._smoothed, self._smoothed_ns = smoothed, previous_ns
        floor = reference_floor(self.bundle.manifest.healthy_contributions, np.isfinite(baseline.location))
        return reference_score(np.asarray(scores), floor)

    def _is_sick(self, vector: FeatureVector, found: Findings) -> bool:
        """Zone C or D may not become normal: nothing is learned, and an alarm says so on the first day."""
        velocity_mm_s = self._column_value(vector, VELOCITY)
        bound = self._sick_mm_s
        if velocity_mm_s is None:
            return False
        change = self._sick_tracker.step(velocity_mm_s - bound, vector.arrived_monotonic_ns, vector.utc_ns)
        if change is Change.RAISED:
            onset_utc_ns, standing_s = self._sick_tracker.onset_utc_ns, self._sick_tracker.standing_s
            limit = LimitChange(self._sick, change, velocity_mm_s, bound, None, onset_utc_ns, standing_s)
            found.began.append(self._limit_condition(f"limit:{NOT_LEARNED}", limit))
        elif change is Change.CLEARED:
            found.ended.append(f"limit:{NOT_LEARNED}")
        return velocity_mm_s > bound

    # ------------------------------------------------------------------ conditions
    def _decide(
        self, vector: FeatureVector, score: Score | None, monotonic_ns: int, utc_ns: int, found: Findings
    ) -> None:
        excess = score.value - score.threshold if score is not None else None
        change = self._tracker.step(excess, monotonic_ns, vector.utc_ns)
        if change is Change.CLEARED:
            self._told.clear()
            found.ended.append(MODEL_CONDITION)
        elif score is not None and (change is Change.RAISED or self._shows_another_cause(vector, score)):
            self._raise_model(vector, score, found)

    def _shows_another_cause(self, vector: FeatureVector, score: Score) -> bool:
        """A standing alarm is told again when a clear cause that it has not named yet leads in k decisions in a row."""
        if not self._tracker.standing or score.value <= score.threshold:
            return False
        cause = self._explain(vector, score).clear_cause
        self._n_candidate = self._n_candidate + 1 if cause == self._candidate else 1
        self._candidate = cause
        return cause != "" and cause not in self._told and self._n_candidate >= self._decision.k

    def _raise_model(self, vector: FeatureVector, score: Score, found: Findings) -> None:
        explained = self._explain(vector, score)
        if explained.clear_cause:
            self._told.add(explained.clear_cause)
        condition = Condition(
            machine=self.machine.tag,
            name=MODEL_CONDITION,
            alarm_class=AlarmClass.MODEL,
            severity=explained.severity,
            onset_utc_ns=self._tracker.onset_utc_ns,
            explanation=replace(explained.explanation, operating_state=vector.state.key),
            model={"name": self.bundle.manifest.name, "version": self.bundle.manifest.version},
            standing_s=self._tracker.standing_s,
        )
        found.began.append(condition)

    def _explain(self, vector: FeatureVector, score: Score) -> Any:
        baseline = self.baselines[vector.state.key]
        return self._diagnosis.of_score(self.machine, vector, score, baseline, self._point)

    def _check_limits(self, values: Mapping[str, float], monotonic_ns: int, utc_ns: int, found: Findings) -> None:
        running = {Mode.UNKNOWN: None}.get(self.state.mode, self.state.mode is Mode.RUNNING)
        for change in self._limits.step(values, running, self._normals(), monotonic_ns, utc_ns):
            name = f"limit:{change.limit.name}"
            if change.change is Change.CLEARED:
                found.ended.append(name)
            else:
                found.began.append(self._limit_condition(name, change))

    def _limit_condition(self, name: str, change: LimitChange) -> Condition:
        return Condition(
            machine=self.machine.tag,
            name=name,
            alarm_class=AlarmClass.LIMIT,
            severity=Severity(change.limit.severity),
            onset_utc_ns=change.onset_utc_ns,
            explanation=replace(self._diagnosis.of_limit(self.machine, change), operating_state=self.state.key),
            standing_s=change.standing_s,
        )

    # ------------------------------------------------------------------ small parts
    def _current_values(self, tags: TagBank, muted: frozenset[str]) -> dict[str, float]:
        """The machine's channels by role, as far as their last value is good and their sensor is believed."""
        good = {
            role: tags.latest(index)
            for role, index in self.machine.roles.items()
            if self._sensor_of[index] not in muted
        }
        return {role: value for role, value in good.items() if value is not None}

    def _statistics(self, tags: TagBank, muted: frozenset[str], monotonic_ns: int) -> dict[str, tuple[float, bool]]:
        """What the columns read of the machine's channels, by name; a muted sensor's are not usable.

        A channel that has said nothing yet is left out: many devices list registers that they do not support.
        """
        heard = np.isfinite(tags.silent_s(monotonic_ns))
        return {
            name: ABSENT if self._sensor_of[index] in muted else tags.read(statistic, index, monotonic_ns)
            for name, statistic, index in self._tag_statistics
            if heard[index] or self._sensor_of[index] in muted
        }

    def _normals(self) -> dict[str, float]:
        baseline = self.baselines.get(self.state.key)
        if baseline is None:
            return {}
        columns = zip(self.machine.features.columns, baseline.normal.tolist(), strict=True)
        return {
            column.quantity: normal for column, normal in columns if column.channel != "burst" and math.isfinite(normal)
        }

    def hold(self, condition: str, onset_utc_ns: int, cause: str) -> None:
        """Take up a condition that stood before a restart, and what it was called."""
        if condition == MODEL_CONDITION:
            self._tracker.hold(onset_utc_ns)
            self._told.add(cause)
        elif condition == f"limit:{NOT_LEARNED}":
            self._sick_tracker.hold(onset_utc_ns)
        elif condition.startswith("limit:"):
            self._limits.hold(condition.removeprefix("limit:"), onset_utc_ns)

    def _is_due(self, monotonic_ns: int) -> bool:
        if self._decided_ns is not None and monotonic_ns - self._decided_ns < self.machine.spec.decide_every_s * 1e9:
            return False
        self._decided_ns = monotonic_ns
        return True

    def _note_velocity(self, vector: FeatureVector) -> None:
        velocity_mm_s = self._column_value(vector, VELOCITY)
        if velocity_mm_s is not None:
            self._from_windows["velocity_rms_mm_s"] = velocity_mm_s

    def _column_value(self, vector: FeatureVector, name: str) -> float | None:
        names = self.machine.features.names
        at = names.index(name) if name in names else -1
        return float(vector.values[at]) if at >= 0 and vector.present[at] else None

    def refused(self) -> Mapping[str, int]:
        """Windows that gave no features, by reason (clipped, wrong rate, ...)."""
        return self._cores.refused

    def learning(self) -> float | None:
        """Share learned of the present state's baseline; None once it has one or when it does not run."""
        if self.state.mode is not Mode.RUNNING or self.state.key in self.baselines:
            return None
        return self._learner.progress().get(self.state.key, 0.0)

    def _feature_record(self, vector: FeatureVector, score: Score | None, window: Window | None) -> Record:
        point = self._point
        body = {
            "machine_type": self.machine.spec.type,
            "state": vector.state.key,
            "digest": vector.digest,
            "values": [_number(value) for value in vector.values],
            "present": [int(here) for here in vector.present],
            "score": _number(score.value) if score else None,
            "threshold": _number(score.threshold) if score else None,
            "burst_id": window.burst_id if window else None,
            "point": {
                "shaft_speed_rpm": _number(point.shaft_speed_rpm),
                "active_power_kw": _number(point.active_power_kw),
                "line_frequency_hz": _number(point.line_frequency_hz),
                **dict(
                    zip(("envelope_low_hz", "envelope_high_hz"), self._envelope_band_hz or (None, None), strict=True)
                ),
            },
            "speed_source": self._cores.speed_source if window is not None else None,
        }
        return Record("feature", vector.machine, vector.utc_ns, body, arrived_monotonic_ns=vector.arrived_monotonic_ns)


@dataclass(slots=True)
class Cadence:
    """How often a machine is judged, measured while it learns: the median of the last intervals."""

    _intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _last_ns: int | None = None

    def tick(self, monotonic_ns: int) -> None:
        if self._last_ns is not None and monotonic_ns > self._last_ns:
            self._intervals_s.append((monotonic_ns - self._last_ns) / 1e9)
        self._last_ns = monotonic_ns

    @property
    def interval_s(self) -> float:
        return float(np.median(self._intervals_s)) if self._intervals_s else 600.0


def burst_records(window: Window) -> list[Record]:
    """A burst, one record an axis, int16 with a scale: what retraining and a second opinion need."""
    records = []
    for axis, samples in zip(window.axes, window.samples, strict=True):
        peak = float(np.abs(samples).max()) or 1.0
        scale = peak / 32767
        body = {
            "sensor": window.sensor,
            "axis": axis,
            "sample_rate_hz": window.sample_rate_hz,
            "scale_m_s2": scale,
            "burst_id": window.burst_id,
            "start_utc_ns": window.utc_ns,
            "samples": np.round(samples / scale).astype("<i2").tobytes(),
        }
        records.append(
            Record("burst", window.machine, window.utc_ns, body, arrived_monotonic_ns=window.arrived_monotonic_ns)
        )
    return records


def _averaged(before: F32 | None, now: F32, elapsed_s: float, tau_s: float) -> F32:
    """Exponential average at irregular times; a gap counts for at most one time constant."""
    if before is None:
        return now
    gain = 1.0 - math.exp(-min(max(elapsed_s, 0.0), tau_s) / tau_s)
    moved: F32 = before + np.float32(gain) * (now - before)
    return moved


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
