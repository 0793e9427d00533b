"""Where training's vectors come from: simulated machines, or what the collector stored. Both end as the same `Windows`.

Simulated bursts go through the agent's own `FeatureSet.compute`; stored vectors were made by it on the gateway, and
only those with the present feature digest are taken. There is no second way to compute a feature.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.covariates import covariates_of
from agent.features import Cores, DataPlate, FeatureSet, Nameplate
from agent.features.bearings import bearing_orders
from agent.machine import StateRule
from agent.vocabulary import Covariates, OperatingPoint, Window
from firmware_bridge.errors import HarkError
from simulator.faults import FAULTS
from simulator.fleet import BURST_PLACE, VirtualMachine
from simulator.machine_set import SetParameters

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

STEADY_TAGS = (
    "tag.level",
    "tag.slow_level",
    "tag.thermal_level",
    "tag.median",
)  # what a single moment of a steady machine tells
BEARINGS = {"motor": "6308", "pump": "6309"}
SEVERITIES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # of simulated faults, each twice the one before
N_CURVE_POINTS = 8  # what a site file takes
STANDING_ENDS = ("normal", "rtn_unacknowledged")


class TrainingRefused(HarkError):
    """There is not enough, or not the right data to train on; the message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Feature vectors of one machine in one operating state, oldest first.

    Attributes:
        values: shape (n_windows, n_columns), physical units, NaN where absent. present: same shape.
        envelope_band_hz: the machine's own band of the envelope that they were measured in; None: the machine type's.
        covariates: speed, load and ambient temperature under which, shape (n_windows, 3); None where nothing is known of them.
    """

    machine: str
    state: str
    values: F32
    present: Mask
    envelope_band_hz: tuple[float, float] | None = None
    covariates: F64 | None = None

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int | None = None) -> Windows:
        """Some of the windows, by place in time."""
        part = slice(start, stop)
        covariates = None if self.covariates is None else self.covariates[part]
        return Windows(
            self.machine, self.state, self.values[part], self.present[part], self.envelope_band_hz, covariates
        )


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """What a dataset folder holds for one machine type.

    Attributes:
        healthy: running, outside alarms, of usable quality, at each machine's own cadence. suspect: within alarms.
        left_out: how many other rows, by machine ("" where they are of other types) and reason; n_rows counts them all.
        cadence_s: how long a machine's vectors are apart, the median over machines; NaN where no machine has two.
        youngest_utc: time of the last row that fits. version: of the Delta tables.
    """

    healthy: tuple[Windows, ...]
    suspect: tuple[Windows, ...]
    left_out: Mapping[tuple[str, str], int]
    cadence_s: float
    youngest_utc: str
    version: str
    n_rows: int

    @property
    def skipped(self) -> dict[str, int]:
        """Rows left out, by reason."""
        totals: Counter[str] = Counter()
        for (_, reason), count in self.left_out.items():
            totals[reason] += count
        return dict(totals)


# ---------------------------------------------------------------------------------------------- simulated machines
class Simulated:
    """One virtual machine seen through the agent's feature code."""

    def __init__(self, features: FeatureSet, kind: Literal["motor", "pump"], seed: int, config: Path) -> None:
        self.name = f"{kind}-{seed}"
        self._features = features
        self._machine = VirtualMachine(
            kind, seed, sample_rate_hz=features.sample_rate_hz or 25_600.0, n_samples=features.n_samples or 25_600
        )
        parameters = self._machine.parameters
        self._nameplate = Nameplate(
            parameters.motor.rated_speed_rpm,
            50.0,
            6 if kind == "pump" else None,
            bearing_orders(config, BEARINGS[kind]),
            plate_of(parameters),
        )
        self._cores = Cores(features.plan_at)
        self._rule = StateRule()
        self._steady = [
            (name, channel) for name, (channel, statistic) in features.statistics.items() if statistic in STEADY_TAGS
        ]

    def windows(self, moments: Iterable[int], faults: Mapping[str, float] | None = None) -> Windows:
        """The vectors of these moments of its life."""
        made = [self._vector(moment, faults) for moment in moments]
        values, present, covariates = zip(*made, strict=True)
        under = np.array(covariates, np.float64)
        return Windows(self.name, "running:10", np.stack(values), np.stack(present), covariates=under)

    def _vector(self, moment: int, faults: Mapping[str, float] | None) -> tuple[F32, Mask, Covariates]:
        samples, rate_hz, scalars = self._machine.sample(moment, faults)
        point = OperatingPoint(
            scalars.get("shaft_speed_rpm", math.nan),
            scalars.get("output_frequency_hz", math.nan),
            scalars.get("active_power_kw", math.nan),
        )
        window = Window(self.name, "sim", ("x", "y", "z"), samples, rate_hz, moment, 0, 0, point)
        tags = {name: (scalars[channel], True) for name, channel in self._steady if channel in scalars}
        values, present = self._features.compute(window, tags, self._nameplate, self._cores)
        return values, present, covariates_of(self._rule, scalars, scalars, self._cores.point.shaft_speed_rpm)


def plate_of(parameters: SetParameters) -> DataPlate:
    """What stands on the plates and in the data sheets of a simulated set: its own curves, up to 1.4 times best flow."""
    motor, pump = parameters.motor, parameters.pump
    flows_m3_h = [pump.best_flow_m3_h * at / (N_CURVE_POINTS - 1) * 1.4 for at in range(N_CURVE_POINTS)]
    relative = [flow / pump.best_flow_m3_h - 1.0 for flow in flows_m3_h]
    losses_kw = motor.fixed_loss_kw + motor.load_loss_kw
    return DataPlate(
        rated_power_kw=motor.rated_power_kw,
        rated_voltage_v=math.sqrt(3.0) * motor.supply_voltage_v,
        rated_current_a=motor.rated_current_a,
        rated_power_factor_ratio=motor.rated_power_factor_ratio,
        rated_efficiency_ratio=motor.drive_efficiency_ratio * motor.rated_power_kw / (motor.rated_power_kw + losses_kw),
        n_poles=motor.n_poles,
        rated_rise_k=motor.bearing_rise_k,
        no_load_rise_k=motor.bearing_rise_k * (0.4 * motor.fixed_loss_kw / losses_kw + 0.6),
        head_curve=tuple((flow, pump.shutoff_head_m - pump.head_slope * flow**2) for flow in flows_m3_h),
        efficiency_curve=tuple(
            (flow, pump.best_efficiency_ratio * (1.0 - beside**2))
            for flow, beside in zip(flows_m3_h, relative, strict=True)
        ),
        npsh3_curve=tuple((flow, pump.npsh3_at_zero_m + pump.npsh3_slope * flow**2) for flow in flows_m3_h),
    )


def simulated_faults(kind: str) -> tuple[str, ...]:
    """The faults that a machine of this kind can have where its burst sensor or its channels may see them."""
    places = {BURST_PLACE[kind], kind}
    return tuple(fault for fault, mode in FAULTS.items() if places & set(mode.places))


def simulated_version() -> str:
    """Hash of the simulator's sources: simulated data change exactly when they do."""
    return f"simulator {sources_sha256(('simulator',))[:16]}"


def sources_sha256(rooms: Sequence[str]) -> str:
    """Hash over the sources of these rooms or files, in order of their names."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in rooms:
        path = root / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------- collected data
INSIDE_ALARM = "inside an alarm"
BEFORE_ANEW = "before it was to be learned anew"
OTHER_BAND = "another envelope band"
REPEATED = "repeats the one before"
MOSTLY_ABSENT = "most columns absent"
TOO_DENSE = "closer than the cadence"
DENSE_RATIO = 0.5  # of the machine's usual interval: what comes sooner would count the same moment twice
LEAST_PRESENT = 0.5  # of the columns that the machine usually has, as the agent asks of a vector that it judges


@dataclass(frozen=True, slots=True)
class _Row:
    """One stored vector. `order`: its place among all that its gateways wrote, whatever their clocks said."""

    order: tuple[int, int]
    utc_ns: int
    values: F32
    band_hz: tuple[float, float] | None
    covariates: Covariates

    @classmethod
    def of(cls, row: Mapping[str, Any], order: tuple[int, int]) -> _Row:
        values = [
            value if value is not None and here else math.nan
            for value, here in zip(row["values"], row["present"], strict=True)
        ]
        low_hz, high_hz = row.get("envelope_low_hz"), row.get("envelope_high_hz")
        band_hz = None if low_hz is None or high_hz is None else (low_hz, high_hz)
        under = (row.get(name) for name in ("shaft_speed_rpm", "load", "ambient_degc"))
        covariates = Covariates(*(math.nan if value is None else value for value in under))
        return cls(order, row["utc_ns"], np.array(values, np.float32), band_hz, covariates)


@dataclass(slots=True)
class _Sorted:
    """Rows by machine and state while a table is read, and why some of them are left out in the end.

    A machine's rows stand in the order in which they were written: by sequence, and gateway after gateway where it had several,
    because a step of the clock would mix them up.
    """

    rows: dict[tuple[str, str], list[_Row]] = field(default_factory=dict)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    _gateways: dict[str, int] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Gateways count in the order in which they are met."""
        gateway = self._gateways.setdefault(row["gateway"], len(self._gateways))
        self.rows.setdefault((row["machine"], row["state"]), []).append(_Row.of(row, (gateway, row["seq"])))

    def windows(self) -> tuple[Windows, ...]:
        """What is usable. Of rows in several envelope bands those in the latest one count."""
        made = []
        for (machine, state), rows in sorted(self.rows.items()):
            rows.sort(key=lambda row: row.order)
            usable = self._usable(machine, rows)
            if usable:
                values = np.stack([row.values for row in usable])
                covariates = np.array([row.covariates for row in usable], np.float64)
                made.append(Windows(machine, state, values, np.isfinite(values), usable[-1].band_hz, covariates))
        return tuple(made)

    def _usable(self, machine: str, rows: Sequence[_Row]) -> list[_Row]:
        band_hz = rows[-1].band_hz
        usual = int(np.median([np.isfinite(row.values).sum() for row in rows]))
        least_ns = DENSE_RATIO * interval_ns(rows)
        kept: list[_Row] = []
        for row in rows:
            reason = ""
            if row.band_hz != band_hz:
                reason = OTHER_BAND
            elif np.isfinite(row.values).sum() < max(1.0, LEAST_PRESENT * usual):
                reason = MOSTLY_ABSENT
            elif kept and np.array_equal(row.values, kept[-1].values, equal_nan=True):
                reason = REPEATED
            elif kept and 0 <= row.utc_ns - kept[-1].utc_ns < least_ns:
                reason = TOO_DENSE
            if reason:
                self.left_out[machine, reason] += 1
            else:
                kept.append(row)
        return kept

    def cadence_s(self) -> float:
        """The median over machines of how long their vectors are apart."""
        found = [interval_ns(rows) / 1e9 for rows in self.rows.values() if len(rows) > 1]
        return float(np.median(found)) if found else math.nan


def interval_ns(rows: Sequence[_Row]) -> float:
    """How long these rows, in order, usually are apart; 0 where there is nothing to measure. Steps of the clock do not count."""
    steps = np.diff([row.utc_ns for row in rows])
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def collected(folder: Path, machine_type: str, features: FeatureSet) -> Collected:
    """Read the collector's dataset: running, outside alarms, of this type and of the present feature digest.

    Raises: TrainingRefused: no such dataset, or nothing in it that fits; says how many rows were left out and why.
    """
    from training.delta import open_table

    table = open_table(folder, "feature")
    if table is None:
        raise TrainingRefused(f"{folder}: holds no features table; fill it with `hark data collect {folder}`")
    alarms = open_table(folder, "alarm")
    standing = standing_alarms(_rows_of(alarms))
    anew = learned_anew(_rows_of(open_table(folder, "baseline")))
    healthy, suspect = _Sorted(), _Sorted()
    left_out: Counter[tuple[str, str]] = Counter()
    youngest: datetime | None = None
    n_rows = 0
    for batch in table.to_pyarrow_dataset().to_batches():
        for row in batch.to_pylist():
            n_rows += 1
            reason = _unfit(row, machine_type, features.digest)
            if reason:
                left_out["" if reason == "another type" else row["machine"], reason] += 1
                continue
            if row["utc_ns"] < anew.get((row["site"], row["machine"]), 0):
                left_out[row["machine"], BEFORE_ANEW] += 1
                continue
            youngest = row["utc"] if youngest is None else max(youngest, row["utc"])
            inside = any(start <= row["utc"] <= end for start, end in standing.get((row["site"], row["machine"]), ()))
            if inside:
                left_out[row["machine"], INSIDE_ALARM] += 1
            (suspect if inside else healthy).add(row)
    if youngest is None:
        why = ", ".join(f"{count} {reason}" for (_, reason), count in left_out.items())
        raise TrainingRefused(
            f"{folder}: no vector of a running {machine_type} with this version's features (left out: {why})"
        )
    versions = {"features": table.version()} | ({} if alarms is None else {"alarms": alarms.version()})
    return Collected(
        healthy=healthy.windows(),
        suspect=suspect.windows(),
        left_out=left_out + healthy.left_out,
        cadence_s=healthy.cadence_s(),
        youngest_utc=youngest.strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=json.dumps(versions),
        n_rows=n_rows,
    )


def _rows_of(table: Any) -> list[dict[str, Any]]:
    return [] if table is None else list(table.to_pyarrow_dataset().to_table().to_pylist())


def learned_anew(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """When each machine, its sensor or its mount was last said to be another one: (site, machine) -> UTC in ns."""
    latest: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["what"] == "relearn":
            key = (row["site"], row["machine"])
            latest[key] = max(latest.get(key, 0), row["utc_ns"])
    return latest


def _unfit(row: Mapping[str, Any], machine_type: str, digest: str) -> str:
    if row["machine_type"] != machine_type:
        return "another type"
    if row["digest"] != digest:
        return "another digest"
    return "" if row["state"].startswith("running") else "not running"


def standing_alarms(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[tuple[datetime, datetime]]]:
    """When each machine had any alarm standing: (site, machine) -> [(onset, end)], an open one ending never.

    An alarm's events are taken in the order in which its gateway wrote them: after a step of the clock an end may bear an
    earlier time than what it ended. An alarm that came back before it was acknowledged stands twice.
    """
    by_alarm: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_alarm.setdefault((row["site"], row["machine"], row["gateway"], row["alarm_id"]), []).append(row)
    spans: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for (site, machine, *_), events in by_alarm.items():
        events.sort(key=lambda event: event["seq"])
        spans.setdefault((site, machine), []).extend(_spans(events))
    return spans


def _spans(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[datetime, datetime]]:
    """From each onset to the event that ended it; every time in between lies within. A beginning that was lost is the onset."""
    stood: list[datetime] = []
    for place, event in enumerate(events):
        ends = event["state"] in STANDING_ENDS
        if stood or not ends or place == 0:
            stood += [event["utc"], event["onset_utc"] or event["utc"]]
        if stood and ends:
            yield min(stood), max(stood)
            stood = []
    if stood:
        yield min(stood), datetime.max.replace(tzinfo=stood[0].tzinfo)
