"""`hark evaluate simulator`: months of varied machines' lives through the agent's own pipeline, with every truth known.

Twelve sets of motor and pump, every parameter drawn anew by +-30 % from seeds that no model was trained on, live with starts and
stops, set points, days, weeks, seasons and sensor noise (simulator/life.py). Each learns its normal and is then watched.

false_alarms_per_machine_month, upper95   machine alarms in healthy, judged time; exact Poisson limit
event_recall_pct      fault runs with an alarm of the right machine between onset and the end of the run
top1_pct, top2_pct    of the recalled: the true cause is the first, or among the first two, of the last explanation told
sensor_named_pct, sensor_machine_alarms   runs with a sensor fault that were told as one; machine alarms in all of them
slow_ramp_...         an unbalance that grows for 60 days: when it is found, and whether a baseline of the last 54 windows sees it
The simulator is not evidence for real performance: what it shows is that budget, states, sensors and causes hang together.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.app import open_bundles, run_offline
from agent.baseline import Baseline, reference_score
from agent.config import Site, SiteConfig, resolve
from agent.decision.rate import poisson_interval
from agent.features import DataPlate
from agent.inference.bundle import Bundle
from agent.pipeline import Pipeline
from agent.vocabulary import AlarmClass, AlarmEvent, Record
from firmware_bridge.checked import load
from firmware_bridge.measurement import Block, Measurement, Quality, Waveform
from simulator.faults import FAULTS, SENSOR_FAULTS
from simulator.life import Life
from simulator.scenario import FaultSpec, SetSpec, load_scenario
from simulator.sensor_faults import FITS
from training.dataset import plate_of

SITE = "site.quality.toml"
MOTOR, PUMP = "M-101A", "P-101A"
FIRST_SEED = 90_000  # no model was trained on these
DAY_S, MONTH_S = 86_400.0, 30 * 86_400.0
STEP_S, BURST_S = 120.0, 3600.0
SEVERITIES = (0.35, 0.6, 1.0)
# Faults of the process come within hours, wear within days.
WITHIN_HOURS = frozenset(
    {"cavitation", "clogged_strainer", "air_entrainment", "recirculation", "dry_run", "dead_head", "overload"}
)
RAMP_S, QUICK_RAMP_S, HOLD_S, BEFORE_S = 4 * DAY_S, 0.5 * DAY_S, DAY_S, 0.5 * DAY_S
SENSOR_S = 1.5 * DAY_S  # how long a sensor is faulty
NORMAL_S = 2.5 * DAY_S  # until what is normal for bursts, and between two instruments, is known
DRIFT, DRIFT_RAMP_S, DRIFT_S = "sensor_drift", 30 * DAY_S, 12 * DAY_S  # 1.7 % a day
# Both tell the power. Of all else a drift is not to be told from a slow fault: two are run to show what becomes of them.
SECOND_INSTRUMENT = ("meter-a", "drive-a")
LONE_DRIFTS = ("press-discharge-a", "accel-m101a")
START_UTC_NS, START_MONOTONIC_NS = 1_780_000_000_000_000_000, 1_000_000_000
ROLLING_WINDOWS = 54  # hours
MACHINE_CLASSES = (AlarmClass.MODEL, AlarmClass.LIMIT)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of it is run. The full one takes some twelve minutes on two cores.

    Attributes: learn_days: until each machine's normal is known. watch_days: after that, healthy.
        n_events: fault runs of each fault and severity. slow_days: of the slow ramp.
    """

    n_sets: int = 12
    learn_days: float = 12.0
    watch_days: float = 19.0
    n_events: int = 1
    faults: tuple[str, ...] = ()
    sensor_faults: tuple[str, ...] = ()
    severities: tuple[float, ...] = SEVERITIES
    slow_days: float = 60.0


FULL = Extent()
# What continuous integration has time for: every mechanism, and few of each.
SMALL = Extent(
    n_sets=1,
    learn_days=9.0,
    watch_days=3.0,
    faults=("bearing_outer_race", "unbalance", "cavitation", "impeller_wear"),
    sensor_faults=("sensor_gaps",),
    severities=(0.6,),
    slow_days=0.0,
)


@dataclass(slots=True)
class Told:
    """What the agent said of one stretch of a set's life."""

    events: list[AlarmEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    baselines: dict[tuple[str, str], Baseline] = field(default_factory=dict)
    learned_s: dict[str, float] = field(default_factory=dict)  # when each machine had its first normal

    def raised(self, *classes: AlarmClass) -> list[AlarmEvent]:
        return [e for e in self.events if e.trigger == "raise" and e.alarm_class in classes]


# ------------------------------------------------------------------------------------------------ one stretch of life
def set_spec(root: Path, seed: int) -> SetSpec:
    """The set with the sensors of the site, other machines for every seed."""
    base = load_scenario("demo", root).sets[0]
    return msgspec.structs.replace(base, seed=seed, spread=0.3, crosstalk_ratio=0.005)


def site_of(root: Path, engine: str, plate: DataPlate) -> Site:
    """The quality site with what stands on this set's own plates."""
    path = root / "config" / SITE
    config = load(path, SiteConfig)
    machines = tuple(msgspec.structs.replace(machine, nameplate=plate) for machine in config.machines)
    section = msgspec.structs.replace(config.site, engine=engine)
    return resolve(msgspec.structs.replace(config, machines=machines, site=section), path, root)


def live(
    root: Path,
    engine: str,
    seed: int,
    *,
    first_s: float,
    last_s: float,
    faults: Sequence[FaultSpec] = (),
    baselines: Mapping[tuple[str, str], Baseline] | None = None,
    keep_records: bool = False,
) -> Told:
    """A set's life from one time to another, seen by the agent."""
    spec = set_spec(root, seed)
    life = Life(spec, seed=seed, faults=tuple(faults))
    site = site_of(root, engine, plate_of(life.parameters))
    pipeline = Pipeline(site, _bundles(root, engine), started_monotonic_ns=_stamps(first_s)[1], baselines=baselines)
    told = Told(baselines=dict(baselines or {}))
    for outcome in run_offline(pipeline, _measurements(site, life, first_s, last_s)):
        told.events += outcome.events
        if keep_records:
            told.records += [record for record in outcome.records if record.stream == "feature"]
        for tag, state, baseline in outcome.baselines:
            told.baselines[tag, state] = baseline
            at_s = (outcome.records[-1].utc_ns - START_UTC_NS) / 1e9
            told.learned_s.setdefault(tag, at_s)
    return told


@cache
def _bundles(root: Path, engine: str) -> Mapping[str, Bundle]:
    return open_bundles(site_of(root, engine, DataPlate()))


def _measurements(site: Site, life: Life, first_s: float, last_s: float) -> Iterator[Measurement]:
    """Scalars and bursts in the order of time."""
    points: dict[str, list[tuple[int, str]]] = {}
    for index, channel in enumerate(site.channels):
        points.setdefault(channel.sensor, []).append((index, channel.point))
    burst_sensors = [sensor for machine in site.machines for sensor in machine.burst_sensors]
    next_burst_s = first_s + BURST_S
    for step in range(1, round((last_s - first_s) / STEP_S) + 1):
        time_s = first_s + step * STEP_S
        shown = {**life.step(time_s), "weather-a": {"temperature_degc": round(life.state.ambient_degc, 1)}}
        for sensor, channels in points.items():
            yield _block(channels, shown.get(sensor), time_s)
        if time_s >= next_burst_s:
            next_burst_s += BURST_S
            for sensor in burst_sensors:
                yield from _waveforms(life, sensor, time_s)


def _block(channels: Sequence[tuple[int, str]], shown: Mapping[str, float] | None, time_s: float) -> Block:
    indices = np.array([index for index, _ in channels], np.int32)
    if shown is None:
        values = np.full(len(channels), np.nan, np.float32)
        return Block(indices, values, np.full(len(channels), Quality.BAD_COMM, np.uint8), *_stamps(time_s))
    values = np.array([shown.get(point, np.nan) for _, point in channels], np.float32)
    quality = np.where(np.isfinite(values), Quality.GOOD, Quality.BAD_SENTINEL).astype(np.uint8)
    return Block(indices, values, quality, *_stamps(time_s))


def _waveforms(life: Life, sensor: str, time_s: float) -> Iterator[Waveform]:
    taken = life.burst(sensor)
    if taken is None:
        return
    samples, meta = taken
    utc_ns, monotonic_ns = _stamps(time_s)
    quality = Quality.UNCERTAIN if meta.clipped else Quality.GOOD
    for axis, row in zip(meta.axes, samples, strict=True):
        yield Waveform(sensor, axis, row, meta.sample_rate_hz, meta.index, utc_ns, utc_ns, monotonic_ns, quality)


def _stamps(time_s: float) -> tuple[int, int]:
    return START_UTC_NS + round(time_s * 1e9), START_MONOTONIC_NS + round(time_s * 1e9)


# ------------------------------------------------------------------------------------------------ what is run
@dataclass(frozen=True, slots=True)
class Event:
    """One fault run. `machine`: whose alarm is the right one."""

    seed: int
    fault: FaultSpec
    machine: str
    last_s: float
    before_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one fault run."""

    fault: str
    severity: float
    recalled: bool
    severity_at_alarm: float
    delay_h: float
    ranked: tuple[str, ...]
    clear: bool
    text: str
    other_machine: int


def machine_of(place: str) -> str:
    """Whose alarm a fault at this place must raise."""
    return MOTOR if place.startswith("motor") else PUMP


def events_of(extent: Extent) -> list[Event]:
    """Every fault at every severity, each on another set in turn."""
    faults = extent.faults or tuple(f for f, mode in FAULTS.items() if mode.places != ("sensor",))
    made: list[Event] = []
    onset_s = extent.learn_days * DAY_S + BEFORE_S
    for fault in faults:
        places = FAULTS[fault].places
        for severity in extent.severities:
            for _ in range(extent.n_events):
                place = places[len(made) % len(places)]
                ramp_s = QUICK_RAMP_S if fault in WITHIN_HOURS else RAMP_S
                spec = FaultSpec(set="a", id=fault, place=place, onset_s=onset_s, ramp_s=ramp_s, peak=severity)
                seed = FIRST_SEED + len(made) % extent.n_sets
                made.append(Event(seed, spec, machine_of(place), onset_s + ramp_s + HOLD_S, BEFORE_S))
    return made


def sensor_events_of(extent: Extent) -> list[Event]:
    """Every sensor fault on every kind of sensor that it fits."""
    sensors = {
        "scalar": ("press-discharge-a", "drive-a", "meter-a", "press-suction-a"),
        "vibration": ("vib-a",),
        "burst": ("accel-m101a", "accel-p101a"),
    }
    onset_s = extent.learn_days * DAY_S + NORMAL_S
    made: list[Event] = []
    for fault in extent.sensor_faults or SENSOR_FAULTS:
        ramp_s, lasts_s = (DRIFT_RAMP_S, DRIFT_S) if fault == DRIFT else (0.0, SENSOR_S)
        for kind in FITS[fault]:
            before_s = NORMAL_S if fault == DRIFT or kind == "burst" else BEFORE_S
            for sensor in sensors[kind]:
                if fault == DRIFT and sensor not in SECOND_INSTRUMENT + LONE_DRIFTS:
                    continue
                spec = FaultSpec(set="a", id=fault, sensor=sensor, onset_s=onset_s, ramp_s=ramp_s, peak=1.0)
                seed = FIRST_SEED + len(made) % extent.n_sets
                made.append(Event(seed, spec, sensor, onset_s + lasts_s, before_s))
    return made


def _healthy(root: Path, engine: str, extent: Extent, seed: int) -> Told:
    return live(root, engine, seed, first_s=0.0, last_s=(extent.learn_days + extent.watch_days) * DAY_S)


Baselines = Mapping[int, Mapping[tuple[str, str], Baseline]]  # by seed


def _run_event(root: Path, engine: str, baselines: Baselines, event: Event) -> Told:
    first_s = event.fault.onset_s - event.before_s
    return live(
        root, engine, event.seed, first_s=first_s, last_s=event.last_s, faults=[event.fault],
        baselines=baselines[event.seed],
    )  # fmt: skip


def _verdict(event: Event, told: Told) -> Verdict:
    alarms = [e for e in told.events if e.alarm_class in MACHINE_CLASSES and e.trigger in ("raise", "escalate")]
    since = START_UTC_NS + round(event.fault.onset_s * 1e9)
    right = [alarm for alarm in alarms if alarm.machine == event.machine and alarm.utc_ns >= since]
    others = sum(alarm.machine != event.machine and alarm.trigger == "raise" for alarm in alarms)
    if not right:
        return Verdict(event.fault.id, event.fault.peak, False, np.nan, np.nan, (), False, "", others)
    by_model = [alarm for alarm in right if alarm.alarm_class is AlarmClass.MODEL]
    last = (by_model or right)[-1]  # a norm's limit says that it is too much, not why
    causes = last.explanation.causes
    at_s = (right[0].utc_ns - START_UTC_NS) / 1e9
    return Verdict(
        fault=event.fault.id,
        severity=event.fault.peak,
        recalled=True,
        severity_at_alarm=round(event.fault.severity(at_s), 3),
        delay_h=round((at_s - event.fault.onset_s) / 3600, 1),
        ranked=tuple(cause.fault for cause in causes),
        clear=bool(causes) and causes[0].confidence >= 0.6,
        text=last.text,
        other_machine=others,
    )


# ------------------------------------------------------------------------------------------------ figures
def evaluate(folder: Path | None, root: Path, engine: str = "onnx", extent: Extent = FULL) -> dict[str, Any]:
    """Run everything and give the figures. `folder` is not needed: nothing is read."""
    seeds = range(FIRST_SEED, FIRST_SEED + extent.n_sets)
    with multiprocessing.get_context("spawn").Pool() as pool:
        healthy = dict(zip(seeds, pool.imap(partial(_healthy, root, engine, extent), seeds), strict=True))
        known = {seed: told.baselines for seed, told in healthy.items()}
        events, sensor_events = events_of(extent), sensor_events_of(extent)
        slow = pool.apply_async(slow_ramp, (root, engine, known[FIRST_SEED], extent)) if extent.slow_days else None
        told = list(pool.imap(partial(_run_event, root, engine, known), events + sensor_events))
        verdicts = [_verdict(event, one) for event, one in zip(events, told, strict=False)]
        return {
            **_budget(healthy.values(), extent),
            **_recall(verdicts),
            **_sensors(sensor_events, told[len(events) :]),
            **(slow.get() if slow is not None else {}),
            "verdicts": [msgspec.to_builtins(verdict) for verdict in verdicts],
        }


def _budget(healthy: Iterable[Told], extent: Extent) -> dict[str, Any]:
    """False alarms of the judged, healthy time, with the exact Poisson limit."""
    last_s = (extent.learn_days + extent.watch_days) * DAY_S
    alarms: list[AlarmEvent] = []
    judged_s = 0.0
    unlearned = 0
    for told in healthy:
        alarms += told.raised(*MACHINE_CLASSES)
        unlearned += 2 - len(told.learned_s)
        judged_s += sum(last_s - at_s for at_s in told.learned_s.values())
    months = judged_s / MONTH_S
    low, high = poisson_interval(len(alarms), max(months, 1e-9))
    return {
        "machine_months": round(months, 2),
        "false_alarms": len(alarms),
        "false_alarms_per_machine_month": round(len(alarms) / months, 3) if months else None,
        "lower95": round(low, 3),
        "upper95": round(high, 3),
        "machines_without_baseline": unlearned,
        "false_alarm_texts": [alarm.text for alarm in alarms],
    }


def _recall(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    recalled = [verdict for verdict in verdicts if verdict.recalled]
    named = [verdict for verdict in recalled if verdict.ranked]
    first = [verdict for verdict in recalled if verdict.fault in verdict.ranked[:1]]
    second = [verdict for verdict in recalled if verdict.fault in verdict.ranked[:2]]
    clear = [verdict for verdict in recalled if verdict.clear]
    severities = {
        fault: float(np.median([v.severity_at_alarm for v in recalled if v.fault == fault]))
        for fault in dict.fromkeys(v.fault for v in recalled)
    }
    return {
        "events": len(verdicts),
        "event_recall_pct": _pct(len(recalled), len(verdicts)),
        "top1_pct": _pct(len(first), len(recalled)),
        "top2_pct": _pct(len(second), len(recalled)),
        "unexplained": len(recalled) - len(named),
        "clear_pct": _pct(len(clear), len(recalled)),
        "clear_right_pct": _pct(sum(v.fault == v.ranked[0] for v in clear), len(clear)),
        "median_severity_at_detection": round(float(np.median(list(severities.values()))), 3) if severities else None,
        "severity_at_detection": severities,
        "missed": dict(Counter(f"{v.fault} {v.severity}" for v in verdicts if not v.recalled)),
        "texts": {FAULTS[v.fault].title: v.text for v in reversed(recalled)},
    }


def _sensors(events: Sequence[Event], told: Sequence[Told]) -> dict[str, Any]:
    """Named: an alarm of class SENSOR on that sensor. A machine alarm in such a run is a false one."""
    not_named: dict[bool, list[str]] = {True: [], False: []}  # by whether anything can tell
    alarms: dict[bool, list[str]] = {True: [], False: []}
    n_events: Counter[bool] = Counter()
    for event, one in zip(events, told, strict=True):
        sensor = event.fault.sensor or ""
        can_tell = event.fault.id != DRIFT or sensor in SECOND_INSTRUMENT
        n_events[can_tell] += 1
        since = START_UTC_NS + round(event.fault.onset_s * 1e9)
        if not any(
            f":{sensor}:" in alarm.condition for alarm in one.raised(AlarmClass.SENSOR) if alarm.utc_ns >= since
        ):
            not_named[can_tell].append(f"{event.fault.id} {sensor}")
        alarms[can_tell] += [f"{event.fault.id} {sensor}: {alarm.text}" for alarm in one.raised(*MACHINE_CLASSES)]
    return {
        "sensor_events": n_events[True],
        "sensor_named_pct": _pct(n_events[True] - len(not_named[True]), n_events[True]),
        "sensor_machine_alarms": len(alarms[True]),
        "sensor_not_named": not_named[True],
        "sensor_machine_alarm_texts": alarms[True],
        "lone_drifts": n_events[False],
        "lone_drifts_named": n_events[False] - len(not_named[False]),
        "lone_drift_machine_alarms": len(alarms[False]),
    }


def _pct(n: int, of: int) -> float:
    return round(100 * n / of, 1) if of else 0.0


# ------------------------------------------------------------------------------------------------ the slow ramp
def slow_ramp(root: Path, engine: str, baselines: Mapping[tuple[str, str], Baseline], extent: Extent) -> dict[str, Any]:
    """An unbalance that grows for months: found against the frozen normal, never against one that follows."""
    onset_s = extent.learn_days * DAY_S
    fault = FaultSpec(
        set="a", id="unbalance", place="motor_de", onset_s=onset_s, ramp_s=extent.slow_days * DAY_S, peak=0.5
    )
    last_s = onset_s + extent.slow_days * DAY_S
    told = live(
        root, engine, FIRST_SEED, first_s=onset_s, last_s=last_s, faults=[fault], baselines=baselines, keep_records=True
    )
    alarms = [alarm for alarm in told.raised(*MACHINE_CLASSES) if alarm.machine == MOTOR]
    found_s = (alarms[0].utc_ns - START_UTC_NS) / 1e9 if alarms else None
    rows = [record.payload for record in told.records if record.machine == MOTOR]
    return {
        "slow_ramp_days": extent.slow_days,
        "slow_ramp_found_after_days": round((found_s - onset_s) / DAY_S, 1) if found_s is not None else None,
        "slow_ramp_severity_at_detection": round(fault.severity(found_s), 3) if found_s is not None else None,
        "slow_ramp_found_by_rolling_54h": int(_rolling_finds(root, engine, rows)),
    }


def _rolling_finds(root: Path, engine: str, rows: Sequence[Any]) -> bool:
    """Whether a baseline of the last 54 running windows, learned anew with every one, would have raised an alarm."""
    site = site_of(root, engine, DataPlate())
    machine = next(one for one in site.machines if one.tag == MOTOR)
    bundle = _bundles(root, engine)[MOTOR]
    transforms = [column.transform for column in machine.features.columns]
    running = [row for row in rows if row["state"].startswith("running")]
    values = np.array([[np.nan if v is None else v for v in row["values"]] for row in running], np.float32)
    present = np.isfinite(values)
    threshold_x = bundle.manifest.tail.quantile(0.5 / (MONTH_S / BURST_S) * 3 / 5)
    exceeded: list[bool] = []
    for now in range(ROLLING_WINDOWS, len(values)):
        past = slice(now - ROLLING_WINDOWS, now)
        baseline = Baseline.fit(values[past], present[past], transforms, machine.scale_floors)
        z, judged = baseline.refer(values[past], present[past], transforms)
        masks = judged.astype(np.float32)
        healthy = [bundle.score(row, gaps)[0] for row, gaps in zip(z[::6], masks[::6], strict=True)]
        one, seen = baseline.refer(values[now], present[now], transforms)
        score = bundle.score(one, seen.astype(np.float32))[0]
        exceeded.append(score > threshold_x * reference_score(np.asarray(healthy)))
        if sum(exceeded[-5:]) >= 3:
            return True
    return False
