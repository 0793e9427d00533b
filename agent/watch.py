"""MachineWatch: one machine's way from measurements to conditions. Plain calls, no threads, no files, time passed in.

state -> vector -> baseline -> score -> condition, with the protective limits beside it. What it finds it says as
`Condition`s that begin or end; the alarm book (decision/alarm.py) makes events of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from agent.baseline import Baseline
from agent.budget import LatencyBudget, Level
from agent.config import DecisionSection, Machine
from agent.covariates import covariates_of
from agent.decision.alarm import Condition
from agent.decision.model_alarm import ModelAlarm
from agent.decision.newbaseline import NEW_BASELINE, BaselineCheck, Novelty
from agent.decision.outlook import Outlook
from agent.decision.rate import AlarmRate
from agent.decision.threshold import Change, ConditionTracker, LimitChange, LimitWatch
from agent.diagnosis import Diagnosis, Explained
from agent.features import ABSENT, Cores
from agent.inference.bundle import Bundle
from agent.learning import Learning
from agent.scoring import Scorer
from agent.state import FLOOR_OF_UNIT, StateTracker
from agent.tagbank import TagBank
from agent.vocabulary import (
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
from firmware_bridge.units import suffix_of

MODEL_CONDITION = "model"
DAY_ONE = "day_one"  # the alarm that keeps a sick machine from becoming its own normal
VELOCITY = "spectrum.velocity_rms_mm_s"
BURST_VELOCITY = "velocity_rms_mm_s"  # the same as a value of the machine
LEVELS = ("tag.level", "tag.amplitude", "tag.carpet")  # statistics that are the channel's own value, and not its unrest
N_AXES = 3  # it adds axes: above sqrt(3) times a zone's boundary one axis is beyond it for certain
N_SIGMA_SPREAD = 4.0  # standard deviations from the smallest of some readings to the largest


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
        self._role_channels = np.array(list(machine.roles.values()), np.intp)
        self.bundle = bundle
        self.budget = budget
        self._diagnosis = diagnosis
        features = machine.features
        self._cores = Cores(features.plan_at)
        shipped = {
            key: kept.as_baseline(features.digest)
            for key, kept in bundle.manifest.baselines.get(machine.tag, {}).items()
        }
        self.learning = Learning(machine, {**shipped, **(baselines or {})}, self._cores)
        self._scorer = Scorer(bundle, self.learning.transforms, decision, false_alarms_per_month)
        self._alarm = ModelAlarm(decision)
        self._baseline_check = BaselineCheck(features, decision.k, decision.m)
        self._new_baseline = ""  # the condition that says so, while it stands
        self._limits = LimitWatch(machine.profile.limits)
        self._outlook = Outlook(
            machine.profile.limits, {BURST_VELOCITY: math.sqrt(N_AXES) * machine.profile.zone_cd_mm_s}
        )
        self._day_one = ConditionTracker(k=decision.k, m=decision.m)
        self._although_sick = False
        plate = machine.nameplate
        rule = machine.profile.state
        told_by = (rule.speed_channel, rule.power_channel, rule.current_channel, *rule.vibration_channels)
        self._told_by_tags = machine.spec.assume_running or any(channel in machine.roles for channel in told_by)
        self._states = StateTracker(
            machine.state_rule,
            plate.rated_speed_rpm,
            assume_running=machine.spec.assume_running,
            rated_current_a=plate.data.rated_current_a or math.nan,
        )
        self._tag_statistics = [
            (name, statistic, machine.roles[channel])
            for name, (channel, statistic) in features.statistics.items()
            if channel in machine.roles
        ]
        self.judged_channels = frozenset(channel for _, _, channel in self._tag_statistics)
        self._point = OperatingPoint()  # of the last vector
        self._burst_before: list[Record] = []  # packed: an alarm carries it too
        self._decided_ns: int | None = None
        self._stands_for_s = 0.0  # the last decision
        self.rate = AlarmRate()  # since the agent was started
        self.state = OperatingState(Mode.UNKNOWN)
        self.last_score: Score | None = None
        self.last_values: dict[str, float] = {}
        self._from_windows: dict[str, float] = {}

    # ------------------------------------------------------------------ what comes in
    def on_tags(
        self,
        tags: TagBank,
        renewed: frozenset[int],
        muted: frozenset[str],
        monotonic_ns: int,
        utc_ns: int,
        *,
        waits: bool = False,
        doubted: frozenset[int] = frozenset(),
    ) -> Findings:
        """After a block of one of its sensors: state and limits; and the verdict, when no burst brings it.

        Args:
            renewed: channels that were read just now. A limit looks at these alone: one old reading, looked at again and again,
                would outlast any delay.
            muted: sensors that are not believed. doubted: single channels, likewise, for a moment.
            waits: no verdict now, because it is not known yet whose step was seen.
        """
        found = Findings()
        values = self._current_values(tags, muted, doubted)
        self.last_values = {**values, **self._from_windows}
        point = self.operating_point(tags, monotonic_ns)
        self.state = self._states.step(
            point.shaft_speed_rpm,
            point.active_power_kw,
            monotonic_ns,
            current_a=values.get(self.machine.profile.state.current_channel, math.nan),
            vibration_floors=self._vibration_floors(values),
        )
        read = {role: value for role, value in values.items() if self.machine.roles[role] in renewed}
        self._check_limits(read, monotonic_ns, utc_ns, found)
        if not self.machine.burst_sensors and not waits and self._is_due(monotonic_ns):
            self._judge(None, tags, muted, monotonic_ns, utc_ns, found)
        return found

    def on_window(self, window: Window, tags: TagBank, muted: frozenset[str], utc_ns: int) -> Findings:
        """After a whole burst: features, score, verdict."""
        found = Findings()
        if self.budget.level >= Level.LIMITS_ONLY:
            self.budget.count_shed("window")
            return found
        if self.state.mode is Mode.RUNNING:
            self.learning.look_for_envelope_band(window)
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

    @property
    def runs(self) -> bool | None:
        """Whether it runs; None where nobody tells. Signals that contradict each other are no standstill."""
        if self.state.mode is Mode.UNKNOWN:
            return True if self._states.contradicts else None
        return self.state.mode is Mode.RUNNING

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
        if window is not None:
            vector = self._note_velocity(vector)
        score = self._score(vector, window, found)
        found.records.append(self._feature_record(vector, score, window))
        started = perf_counter()
        self._decide(vector, score, window, found)
        self.budget.record("decision", perf_counter() - started)
        if score is not None:
            self._run_in(vector, found)

    def _vector(
        self, window: Window | None, tags: TagBank, muted: frozenset[str], monotonic_ns: int, utc_ns: int
    ) -> FeatureVector:
        statistics = self._statistics(tags, muted, monotonic_ns)
        features = self.machine.features
        values, present = features.compute(window, statistics, self.machine.nameplate, self._cores)
        if self._states.has_run_s(monotonic_ns) < self.machine.state_rule.warming_s:
            present = present & ~features.when_warm
        self._point = self._cores.point if window is not None else self.operating_point(tags, monotonic_ns)
        return FeatureVector(
            machine=self.machine.tag,
            state=self.state,
            values=values,
            present=present,
            digest=features.digest,
            utc_ns=window.utc_ns if window is not None else utc_ns,
            arrived_monotonic_ns=monotonic_ns,
            covariates=covariates_of(
                self.machine.profile.state, self.last_values, self.machine.roles, self._point.shaft_speed_rpm
            ),
        )

    def _score(self, vector: FeatureVector, window: Window | None, found: Findings) -> Score | None:
        """The score where there is a baseline for this state; else learn, when the machine may be learned from."""
        if vector.state.mode is not Mode.RUNNING:
            self._scorer.pause()
            return None
        self._stands_for_s = self._scorer.cadence.tick(vector.arrived_monotonic_ns)
        baseline = self.learning.baseline_of(vector.state)
        if baseline is None:
            self._learn(vector, window, found)
            return None
        if self.budget.level >= Level.NO_MODEL:
            self.budget.count_shed("score")
            return None
        started = perf_counter()
        score = self._scorer.score(vector, baseline)
        self.budget.record("inference", perf_counter() - started)
        self.last_score = score or self.last_score
        return score

    # ------------------------------------------------------------------ learning
    def _learn(self, vector: FeatureVector, window: Window | None, found: Findings) -> None:
        if not vector.present.any() or self._is_sick(vector, window, found):
            return
        learned = self.learning.offer(vector, self._scorer.reference)
        if learned is not None:
            if self._day_one.end():  # learned although it is sick, because a person said so
                found.ended.append(DAY_ONE)
            found.baselines.append(learned)
            found.records.append(self._baseline_record(vector.utc_ns, "learned", *learned))

    def _run_in(self, vector: FeatureVector, found: Findings) -> None:
        kept = self.learning.follow(vector, self._stands_for_s)
        if kept is not None:
            found.baselines.append(kept)
            found.records.append(self._baseline_record(vector.utc_ns, "run_in", *kept))

    def _is_sick(self, vector: FeatureVector, window: Window | None, found: Findings) -> bool:
        """What absolute physics calls bad may not become normal: nothing is learned, and an alarm says so on the first day."""
        explained = self._diagnosis.of_day_one(self.machine, vector, self._point, self._bursts(window))
        excess = -1.0 if explained is None else 1.0
        change = self._day_one.step(excess, vector.arrived_monotonic_ns, vector.utc_ns)
        if change is Change.RAISED and explained is not None:
            found.began.append(
                Condition(
                    machine=self.machine.tag,
                    name=DAY_ONE,
                    alarm_class=AlarmClass.MODEL,
                    severity=explained.severity,
                    onset_utc_ns=self._day_one.onset_utc_ns,
                    explanation=replace(explained.explanation, operating_state=vector.state.key),
                    standing_s=self._day_one.standing_s,
                )
            )
        elif change is Change.CLEARED:
            found.ended.append(DAY_ONE)
        bad = explained is not None and explained.severity in (Severity.HIGH, Severity.CRIT)
        return bad and not self._although_sick

    def relearn(self, reason: str, although_sick: bool, utc_ns: int) -> Findings:
        """A person says that this machine, its sensor or its mount is not what it was: a new normal is learned.

        Args: although_sick: learn even a machine that absolute physics calls bad.
        """
        found = Findings()
        if self._alarm.end():
            found.ended.append(MODEL_CONDITION)
        if self._new_baseline:
            found.ended.append(self._new_baseline)
        self._new_baseline = ""
        self._baseline_check.forget()
        if self._day_one.end():
            found.ended.append(DAY_ONE)
        self._although_sick = although_sick
        self.learning.forget()
        self._scorer.forget()
        self._outlook.forget()
        self.last_score = None
        found.records.append(self._baseline_record(utc_ns, "relearn", "", None, reason))
        return found

    def _baseline_record(
        self, utc_ns: int, what: str, state: str, baseline: Baseline | None, reason: str = ""
    ) -> Record:
        body = {
            "what": what,
            "state": state,
            "n_windows": baseline.n_windows if baseline else 0,
            "reason": reason,
            "although_sick": self._although_sick,
        }
        return Record("baseline", self.machine.tag, utc_ns, body, urgent=True)

    # ------------------------------------------------------------------ conditions
    def _decide(self, vector: FeatureVector, score: Score | None, window: Window | None, found: Findings) -> None:
        def explain() -> Explained:
            assert score is not None
            explained = self._explain(vector, score, window)
            return replace(explained, explanation=replace(explained.explanation, forecast=self._outlook.forecast()))

        score = self._unless_new_baseline(vector, score if self.learning.may_raise(vector.state) else None, found)
        self.rate.watched_s += self._stands_for_s if score is not None else 0.0
        stood = self._alarm.standing
        if stood and score is not None:
            self._outlook.step({**self.last_values, **self._from_windows}, self._normals(), vector.arrived_monotonic_ns)
        told = self._alarm.step(score, vector.arrived_monotonic_ns, vector.utc_ns, explain)
        self.rate.n_alarms += self._alarm.standing and not stood
        if told is Change.CLEARED:
            self._outlook.forget()
            found.ended.append(MODEL_CONDITION)
        elif isinstance(told, Explained):
            found.began.append(self._model_condition(vector, told))

    def _unless_new_baseline(self, vector: FeatureVector, score: Score | None, found: Findings) -> Score | None:
        """The score, or None where the baseline is no more this machine's own: then nothing is said of its health.

        Asked as long as no alarm stands: what was called a fault stays one.
        """
        if score is None or self._alarm.standing:
            return score
        baseline = self.learning.baseline_of(vector.state)
        assert baseline is not None  # what was scored has one
        check = self._baseline_check
        known = np.isfinite(baseline.location)
        novelty = check.step(score.deviations, score.present, known, baseline.scale, score.value > score.threshold)
        if novelty is not None and not self._new_baseline:
            self._new_baseline = f"{NEW_BASELINE}{novelty.kind}"
            found.began.append(self._new_baseline_condition(vector, score, baseline, novelty))
        elif self._new_baseline and not check.standing:
            found.ended.append(self._new_baseline)
            self._new_baseline = ""
        return None if check.standing else score

    def _new_baseline_condition(
        self, vector: FeatureVector, score: Score, baseline: Baseline, novelty: Novelty
    ) -> Condition:
        moved = (*novelty.falls, *novelty.rises)
        explanation = self._diagnosis.of_new_baseline(
            self.machine, novelty.kind, vector, score, baseline, self._point, moved
        )
        return Condition(
            machine=self.machine.tag,
            name=self._new_baseline,
            alarm_class=AlarmClass.SENSOR,
            severity=Severity.NO_DATA,
            onset_utc_ns=vector.utc_ns,
            explanation=replace(explanation, operating_state=vector.state.key),
        )

    def _model_condition(self, vector: FeatureVector, explained: Explained) -> Condition:
        return Condition(
            machine=self.machine.tag,
            name=MODEL_CONDITION,
            alarm_class=AlarmClass.MODEL,
            severity=explained.severity,
            onset_utc_ns=self._alarm.onset_utc_ns,
            explanation=replace(explained.explanation, operating_state=vector.state.key),
            model={"name": self.bundle.manifest.name, "version": self.bundle.manifest.version},
            standing_s=self._alarm.standing_s,
        )

    def _explain(self, vector: FeatureVector, score: Score, window: Window | None) -> Explained:
        baseline = self.learning.baseline_of(vector.state)
        assert baseline is not None  # what was scored has one
        return self._diagnosis.of_score(self.machine, vector, score, baseline, self._point, self._bursts(window))

    def _bursts(self, window: Window | None) -> tuple[Window, ...]:
        """This burst and the one before it: what a second opinion on a bearing is asked for."""
        if window is None:
            return ()
        before = window_of(self._burst_before, self._point) if self._burst_before else None
        return (window,) if before is None else (before, window)

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
    def _current_values(self, tags: TagBank, muted: frozenset[str], doubted: frozenset[int]) -> dict[str, float]:
        """The machine's channels by role, as far as their last value is good and they are believed."""
        values = tags.latest_of(self._role_channels).tolist()
        return {
            role: value
            for (role, index), value in zip(self.machine.roles.items(), values, strict=True)
            if not (math.isnan(value) or (muted and self._sensor_of[index] in muted) or index in doubted)
        }

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
        baseline = self.learning.baseline_of(self.state)
        if baseline is None:
            return {}
        columns = zip(self.machine.features.columns, baseline.normal.tolist(), strict=True)
        normals = {
            column.channel: normal for column, normal in columns if column.feature in LEVELS and math.isfinite(normal)
        }
        names = self.machine.features.names
        if VELOCITY in names and math.isfinite(normal := float(baseline.normal[names.index(VELOCITY)])):
            normals[BURST_VELOCITY] = normal
        return normals

    def hold(self, condition: str, onset_utc_ns: int, cause: str, severity: Severity) -> None:
        """Take up a condition that stood before a restart, and what it was called."""
        if condition == MODEL_CONDITION:
            self._alarm.hold(onset_utc_ns, cause, severity)
        elif condition == DAY_ONE:
            self._day_one.hold(onset_utc_ns)
        elif condition.startswith(NEW_BASELINE):
            self._new_baseline = condition
            self._baseline_check.hold()
        elif condition.startswith("limit:"):
            self._limits.hold(condition.removeprefix("limit:"), onset_utc_ns)

    def _is_due(self, monotonic_ns: int) -> bool:
        if self._decided_ns is not None and monotonic_ns - self._decided_ns < self.machine.spec.decide_every_s * 1e9:
            return False
        self._decided_ns = monotonic_ns
        return True

    def _note_velocity(self, vector: FeatureVector) -> FeatureVector:
        """The burst's velocity is a value of the machine like any other; where nothing else tells, its state comes from it."""
        names = self.machine.features.names
        at = names.index(VELOCITY) if VELOCITY in names else -1
        if at < 0 or not vector.present[at]:
            return vector
        velocity_mm_s = float(vector.values[at])
        self._from_windows[BURST_VELOCITY] = velocity_mm_s
        if self._told_by_tags:
            return vector
        floors = velocity_mm_s / FLOOR_OF_UNIT["mm_s"]
        nan = math.nan
        self.state = self._states.step(nan, nan, vector.arrived_monotonic_ns, vibration_floors=floors)
        return replace(vector, state=self.state)

    def _vibration_floors(self, values: Mapping[str, float]) -> float:
        """The first of its vibration channels that says something, over the least that a running machine has."""
        own = [channel for channel in self.machine.profile.state.vibration_channels if channel in values]
        return values[own[0]] / FLOOR_OF_UNIT[suffix_of(own[0])] if own else math.nan

    def refused(self) -> Mapping[str, int]:
        """Windows that gave no features, by reason (clipped, wrong rate, ...)."""
        return self._cores.refused

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
                "load": _number(vector.covariates.load),
                "ambient_degc": _number(vector.covariates.ambient_degc),
                **dict(
                    zip(
                        ("envelope_low_hz", "envelope_high_hz"),
                        self.learning.envelope_band_hz or (None, None),
                        strict=True,
                    )
                ),
            },
            "speed_source": self._cores.speed_source if window is not None else None,
        }
        return Record("feature", vector.machine, vector.utc_ns, body, arrived_monotonic_ns=vector.arrived_monotonic_ns)


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


def window_of(records: Sequence[Record], point: OperatingPoint) -> Window:
    """The inverse of `burst_records`, for one burst's axes."""
    bodies: list[Any] = [record.payload for record in records]
    samples = [np.frombuffer(body["samples"], "<i2") * np.float32(body["scale_m_s2"]) for body in bodies]
    first, record = bodies[0], records[0]
    return Window(
        machine=record.machine,
        sensor=first["sensor"],
        axes=tuple(body["axis"] for body in bodies),
        samples=np.stack(samples),
        sample_rate_hz=first["sample_rate_hz"],
        burst_id=first["burst_id"],
        utc_ns=record.utc_ns,
        arrived_monotonic_ns=record.arrived_monotonic_ns,
        point=point,
    )


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
