"""Where training's vectors come from: simulated machines, or what the collector stored. Both end as the same `Windows`.

Simulated bursts go through the agent's own `FeatureSet.compute`; stored vectors were made by it on the gateway, and
only those with the present feature digest are taken. There is no second way to compute a feature.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.features import Cores, DataPlate, FeatureSet, Nameplate
from agent.features.bearings import bearing_orders
from agent.vocabulary import OperatingPoint, Window
from firmware_bridge.errors import HarkError
from simulator.faults import FAULTS
from simulator.fleet import BURST_PLACE, VirtualMachine
from simulator.machine_set import SetParameters

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

STEADY_TAGS = (
    "tag.level",
    "tag.slow_level",
    "tag.thermal_level",
    "tag.median",
)  # what a single moment of a steady machine tells
BEARINGS = {"motor": "6308", "pump": "6309"}
SEVERITIES = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.0)
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
    """

    machine: str
    state: str
    values: F32
    present: Mask
    envelope_band_hz: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int | None = None) -> Windows:
        """Some of the windows, by place in time."""
        part = slice(start, stop)
        return Windows(self.machine, self.state, self.values[part], self.present[part], self.envelope_band_hz)


@dataclass(frozen=True, slots=True, eq=False)
class FaultyWindows:
    """Windows of one machine with one fault at one severity."""

    windows: Windows
    fault: str
    severity: float


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """What a dataset folder holds for one machine type.

    Attributes:
        healthy: outside alarms, running. suspect: within alarms.
        skipped: why other rows were left out, counted. youngest_utc: time of the last row. version: of the Delta
        tables.
    """

    healthy: tuple[Windows, ...]
    suspect: tuple[Windows, ...]
    skipped: Mapping[str, int]
    youngest_utc: str
    version: str
    n_rows: int


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
        self._steady = [
            (name, channel) for name, (channel, statistic) in features.statistics.items() if statistic in STEADY_TAGS
        ]

    def windows(self, moments: Iterable[int], faults: Mapping[str, float] | None = None) -> Windows:
        """The vectors of these moments of its life."""
        made = [self._vector(moment, faults) for moment in moments]
        values, present = zip(*made, strict=True)
        return Windows(self.name, "running:10", np.stack(values), np.stack(present))

    def _vector(self, moment: int, faults: Mapping[str, float] | None) -> tuple[F32, Mask]:
        samples, rate_hz, scalars = self._machine.sample(moment, faults)
        point = OperatingPoint(
            scalars.get("shaft_speed_rpm", math.nan),
            scalars.get("output_frequency_hz", math.nan),
            scalars.get("active_power_kw", math.nan),
        )
        window = Window(self.name, "sim", ("x", "y", "z"), samples, rate_hz, moment, 0, 0, point)
        tags = {name: (scalars[channel], True) for name, channel in self._steady if channel in scalars}
        return self._features.compute(window, tags, self._nameplate, self._cores)


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
    places = {BURST_PLACE[kind], "pump"} if kind == "pump" else {BURST_PLACE[kind]}
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
@dataclass(slots=True)
class _Sorted:
    """Rows by machine and state while a table is read. Of rows in several envelope bands those in the latest one count."""

    rows: dict[tuple[str, str], list[tuple[int, list[float], list[bool], tuple[float, float] | None]]] = field(
        default_factory=dict
    )

    def add(self, row: Mapping[str, Any]) -> None:
        key = (row["machine"], row["state"])
        values = [math.nan if value is None else value for value in row["values"]]
        low_hz, high_hz = row.get("envelope_low_hz"), row.get("envelope_high_hz")
        band_hz = None if low_hz is None or high_hz is None else (low_hz, high_hz)
        self.rows.setdefault(key, []).append((row["utc_ns"], values, row["present"], band_hz))

    def windows(self) -> tuple[Windows, ...]:
        made = []
        for (machine, state), rows in sorted(self.rows.items()):
            rows.sort(key=lambda row: row[0])
            band_hz = rows[-1][3]
            latest = [row for row in rows if row[3] == band_hz]
            values = np.array([row[1] for row in latest], np.float32)
            present = np.array([row[2] for row in latest], np.bool_) & np.isfinite(values)
            made.append(Windows(machine, state, values, present, band_hz))
        return tuple(made)


def collected(folder: Path, machine_type: str, features: FeatureSet) -> Collected:
    """Read the collector's dataset: running, outside alarms, of this type and of the present feature digest.

    Raises: TrainingRefused: no such dataset, or nothing in it that fits; says how many rows were left out and why.
    """
    from training.delta import open_table

    table = open_table(folder, "feature")
    if table is None:
        raise TrainingRefused(f"{folder}: holds no features table; fill it with `hark data collect {folder}`")
    alarms = open_table(folder, "alarm")
    standing = standing_alarms([] if alarms is None else alarms.to_pyarrow_dataset().to_table().to_pylist())
    healthy, suspect, skipped = (
        _Sorted(),
        _Sorted(),
        dict.fromkeys(("another type", "another digest", "not running"), 0),
    )
    youngest: datetime | None = None
    for batch in table.to_pyarrow_dataset().to_batches():
        for row in batch.to_pylist():
            reason = _unfit(row, machine_type, features.digest)
            if reason:
                skipped[reason] += 1
                continue
            youngest = row["utc"] if youngest is None else max(youngest, row["utc"])
            inside = any(start <= row["utc"] <= end for start, end in standing.get((row["site"], row["machine"]), ()))
            (suspect if inside else healthy).add(row)
    if youngest is None:
        why = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise TrainingRefused(
            f"{folder}: no vector of a running {machine_type} with this version's features (left out: {why})"
        )
    versions = {"features": table.version()} | ({} if alarms is None else {"alarms": alarms.version()})
    n_rows = sum(len(rows) for rows in (*healthy.rows.values(), *suspect.rows.values()))
    stamp = youngest.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Collected(healthy.windows(), suspect.windows(), skipped, stamp, json.dumps(versions), n_rows)


def _unfit(row: Mapping[str, Any], machine_type: str, digest: str) -> str:
    if row["machine_type"] != machine_type:
        return "another type"
    if row["digest"] != digest:
        return "another digest"
    return "" if row["state"].startswith("running") else "not running"


def standing_alarms(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[tuple[datetime, datetime]]]:
    """When each machine had any alarm standing: (site, machine) -> [(onset, end)], an open one ending never."""
    by_alarm: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_alarm.setdefault((row["site"], row["machine"], row["alarm_id"]), []).append(row)
    spans: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for (site, machine, _), events in by_alarm.items():
        events.sort(key=lambda event: (event["utc_ns"], event["seq"]))
        start = min(min(event["onset_utc"] or event["utc"], event["utc"]) for event in events)
        never = datetime.max.replace(tzinfo=start.tzinfo)
        end = next((event["utc"] for event in events if event["state"] in STANDING_ENDS), never)
        spans.setdefault((site, machine), []).append((start, end))
    return spans
