"""A checked config/scenarios/<name>.toml, the plant it describes, and the truth that is written beside its output.

`Plant` is the whole simulator without a wire: ask it for scalars, bursts and truth at any scenario time (0 is when the
plant starts serving). Same scenario and seed, same bytes, whatever is asked for in which order. Training uses it as
arrays; serve_modbus.py and serve_mqtt.py put it on the wire.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from firmware_bridge.checked import Table, key_line, load
from firmware_bridge.errors import ConfigError, Problem
from firmware_bridge.roots import find_root
from simulator.effects import OF_THE_SHAFT, Severities, felt_at
from simulator.faults import FAULTS, SENSOR_FAULTS, severity_at
from simulator.machine_set import MachineSet, SetParameters, SetState
from simulator.sensor_faults import (
    BURST,
    FITS,
    SCALAR,
    VIBRATION,
    VIBRATION_DEVICES,
    heard,
    is_absent,
    lost_in_parts,
    sampled_hz,
    shown,
)
from simulator.sensors import BURST_MODELS, INSTRUMENT_PLACES, INSTRUMENTS, N_NOISE, BurstSensor
from simulator.variation import StepNoise, generator
from simulator.vibration import G_M_S2

F32 = NDArray[np.float32]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}$", description="lower-case letters, digits, _ and -")]
Tag = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="letters, digits, _ . -")]
Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Axis = Literal["x", "y", "z"]
AXES: tuple[Axis, ...] = ("x", "y", "z")


class DeviceSpec(Table, frozen=True):
    """A field device of a set: the profile in config/devices/ it answers like, where it sits, its Modbus unit."""

    name: Name
    device: str
    unit_id: Annotated[int, Meta(ge=1, le=247)]
    place: str
    update_interval_s: Annotated[float, Meta(ge=0.5, description="a whole number of half seconds is meant")] = 1.0


class BurstSpec(Table, frozen=True):
    """An accelerometer with its own network module. `rate_error_pct`: how far its clock is off (it says so)."""

    name: Name
    place: Literal["motor_de", "pump_de"]
    sample_rate_hz: Annotated[float, Meta(ge=1000, le=51200)] = 25_600.0
    n_samples: Annotated[int, Meta(ge=256, le=262144)] = 25_600
    interval_s: Annotated[float, Meta(ge=0.5)] = 1.0
    axes: Annotated[tuple[Axis, ...], Meta(min_length=1, max_length=3)] = AXES
    model: str = "mems_16g"
    rate_error_pct: Annotated[float, Meta(ge=-5, le=5)] = 0.0


class RunSpec(Table, frozen=True):
    """A command to the drive."""

    at_s: Seconds
    on: bool


class SetSpec(Table, frozen=True):
    """A motor and its pump. `seed` says which machines; `spread` 0 is the example itself, 0.3 any of its size."""

    name: Name
    motor: Tag
    pump: Tag
    seed: Annotated[int, Meta(ge=0)] = 0
    spread: Annotated[float, Meta(ge=0, le=0.5)] = 0.1
    ambient_degc: float = 22.0
    crosstalk_ratio: Share = 0.01
    valve_wander_ratio: Annotated[float, Meta(ge=0, le=0.2)] = 0.03
    start: Literal["running", "standstill"] = "running"
    runs: tuple[RunSpec, ...] = ()
    devices: tuple[DeviceSpec, ...] = ()
    bursts: tuple[BurstSpec, ...] = ()


class FaultSpec(Table, frozen=True):
    """A fault with its course: nothing until `onset_s`, `peak` after `ramp_s`, gone after `hold_s` more where given."""

    set: Name
    id: str
    onset_s: Seconds
    place: str | None = None
    sensor: Name | None = None
    ramp_s: Seconds = 0.0
    peak: Share = 1.0
    hold_s: Positive | None = None
    shape: Literal["linear", "exponential"] = "linear"

    def severity(self, t_s: float) -> float:
        """0..1 at a scenario time."""
        return severity_at(
            t_s, onset_s=self.onset_s, ramp_s=self.ramp_s, peak=self.peak, hold_s=self.hold_s, shape=self.shape
        )


class Expectation(Table, frozen=True):
    """An alarm that must come: of which machine, naming which fault, how long after the fault's onset at the latest."""

    machine: Tag
    fault: str
    within_s: Positive


class Scenario(Table, frozen=True):
    """A plant, what happens to it, and the alarms that must follow."""

    title: str
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    duration_s: Positive
    sets: Annotated[tuple[SetSpec, ...], Meta(min_length=1)]
    site: Name = "demo"
    faults: tuple[FaultSpec, ...] = ()
    expect: tuple[Expectation, ...] = ()


def load_scenario(name: str | Path, root: Path | None = None) -> Scenario:
    """A scenario by its name in config/scenarios, or by path.

    Raises: ConfigError: no such scenario (the known ones are listed) or a wrong file, every problem at once.
    """
    path = Path(name)
    if not (path.suffix == ".toml" or path.is_file()):
        folder = find_root(root) / "config" / "scenarios"
        path = folder / f"{name}.toml"
        if not path.is_file():
            known = ", ".join(sorted(found.stem for found in folder.glob("*.toml"))) or "no file at all"
            raise ConfigError(path, [Problem(0, f"scenario {str(name)!r}", f"not known; {folder} has {known}")])
    scenario = load(path, Scenario)
    if problems := [Problem(key_line(path, key), key, text) for key, text in _misfits(scenario)]:
        raise ConfigError(path, problems)
    return scenario


def _misfits(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """(key, what to write instead) for all that a table by itself cannot know."""
    seen: set[str] = set()
    for i, plant_set in enumerate(scenario.sets):
        for key, name in _names(plant_set, f"sets[{i}]"):
            if name in seen:
                yield key, f"{name!r} is there twice; every set, machine and sensor has its own name"
            seen.add(name)
        yield from _set_misfits(plant_set, i)
    for i, fault in enumerate(scenario.faults):
        yield from _fault_misfits(scenario, fault, f"faults[{i}]")
    tags = [tag for plant_set in scenario.sets for tag in (plant_set.motor, plant_set.pump)]
    for i, expected in enumerate(scenario.expect):
        if expected.machine not in tags:
            yield f"expect[{i}].machine", f"{expected.machine!r} is no machine here; write one of {', '.join(tags)}"
        if expected.fault not in FAULTS:
            yield f"expect[{i}].fault", f"not known; write one of {', '.join(FAULTS)}"


def _set_misfits(plant_set: SetSpec, i: int) -> Iterator[tuple[str, str]]:
    """What is wrong with one set's sensors and commands."""
    units = [device.unit_id for device in plant_set.devices]
    for j, device in enumerate(plant_set.devices):
        at = f"sets[{i}].devices[{j}]"
        if device.device not in INSTRUMENTS:
            yield (
                f"{at}.device",
                f"{device.device!r} cannot be simulated; write one of {', '.join(sorted(INSTRUMENTS))}",
            )
        elif device.place not in INSTRUMENT_PLACES[device.device]:
            yield f"{at}.place", f"write one of {', '.join(INSTRUMENT_PLACES[device.device])}"
        if units.index(device.unit_id) != j:
            yield f"{at}.unit_id", f"{device.unit_id} is taken in this set; write another"
    for j, burst in enumerate(plant_set.bursts):
        if burst.model not in BURST_MODELS:
            yield f"sets[{i}].bursts[{j}].model", f"not known; write one of {', '.join(sorted(BURST_MODELS))}"
    if list(plant_set.runs) != sorted(plant_set.runs, key=lambda run: run.at_s):
        yield f"sets[{i}].runs", "write the commands in the order of at_s"


def _names(plant_set: SetSpec, at: str) -> Iterator[tuple[str, str]]:
    yield f"{at}.name", plant_set.name
    yield f"{at}.motor", plant_set.motor
    yield f"{at}.pump", plant_set.pump
    for j, device in enumerate(plant_set.devices):
        yield f"{at}.devices[{j}].name", device.name
    for j, burst in enumerate(plant_set.bursts):
        yield f"{at}.bursts[{j}].name", burst.name


def _fault_misfits(scenario: Scenario, fault: FaultSpec, at: str) -> Iterator[tuple[str, str]]:
    here = {plant_set.name: plant_set for plant_set in scenario.sets}.get(fault.set)
    if here is None:
        yield f"{at}.set", f"{fault.set!r} is no set here; write one of {', '.join(s.name for s in scenario.sets)}"
    if fault.id not in FAULTS:
        yield f"{at}.id", f"{fault.id!r} is not known; write one of {', '.join(FAULTS)}"
    elif fault.id in SENSOR_FAULTS:
        sensors = [name for name, kind in _sensor_kinds(here) if kind in FITS[fault.id]] if here else []
        if here and fault.sensor not in sensors:
            yield f"{at}.sensor", f"{fault.id} needs a sensor of its set; write one of {', '.join(sensors)}"
    elif fault.place not in FAULTS[fault.id].places:
        yield f"{at}.place", f"{fault.id} sits at {' or '.join(FAULTS[fault.id].places)}; write that"


def _sensor_kinds(plant_set: SetSpec) -> Iterator[tuple[str, str]]:
    """Each sensor of a set, and what kind it is for its faults."""
    for device in plant_set.devices:
        yield device.name, VIBRATION if device.device in VIBRATION_DEVICES else SCALAR
    for burst in plant_set.bursts:
        yield burst.name, BURST


def parameters_of(spec: SetSpec) -> SetParameters:
    """The machines of a set."""
    base = SetParameters(crosstalk_ratio=spec.crosstalk_ratio, valve_wander_ratio=spec.valve_wander_ratio)
    return base.varied(generator(spec.seed, "parameters"), spec.spread)


def machine_faults_at(faults: Iterable[FaultSpec], t_s: float) -> Severities:
    """Severities by place and fault, of the faults that machines have at a time."""
    severities: dict[str, dict[str, float]] = {}
    for fault in faults:
        if fault.id not in SENSOR_FAULTS and (severity := fault.severity(t_s)) > 0.0:
            at_place = severities.setdefault(fault.place or "", {})
            at_place[fault.id] = max(severity, at_place.get(fault.id, 0.0))
    return severities


def sensor_faults_at(faults: Iterable[FaultSpec], sensor: str, t_s: float) -> dict[str, float]:
    """Severities of the faults that one sensor has at a time."""
    severities = ((fault.id, fault.severity(t_s)) for fault in faults if fault.sensor == sensor)
    return {fault: severity for fault, severity in severities if severity > 0.0}


def burst_rate_hz(spec: BurstSpec) -> float:
    """What the sensor says, and samples at while its clock is right."""
    return spec.sample_rate_hz * (1.0 + spec.rate_error_pct / 100.0)


@dataclass(frozen=True, slots=True)
class BurstMeta:
    """What a burst sensor knows about its burst. `scale_m_s2`: samples are whole multiples of it, int16."""

    sensor: str
    index: int
    start_s: float
    sample_rate_hz: float
    axes: tuple[str, ...]
    scale_m_s2: float
    full_scale_m_s2: float
    clipped: bool


def burst_meta(spec: BurstSpec, sensor: BurstSensor, samples: F32, index: int, start_s: float) -> BurstMeta:
    """What the sensor says of a burst that it took."""
    full_m_s2 = sensor.model.full_scale_g * G_M_S2
    clipped = bool(np.abs(samples).max() >= full_m_s2 * (1.0 - 1e-6))
    rate_hz = burst_rate_hz(spec)
    return BurstMeta(spec.name, index, start_s, rate_hz, spec.axes, sensor.scale_m_s2, full_m_s2, clipped)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is really so with one machine at one time; `fault` is None where healthy; `sensor` whose fault it is."""

    time_s: float
    machine: str
    state: str
    fault: str | None = None
    severity: float = 0.0
    onset_s: float | None = None
    sensor: str | None = None


class Plant:
    """All sets of a scenario. Every method may be called from any thread, at any time, in any order."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.sets = {spec.name: spec for spec in scenario.sets}
        self._machines = {spec.name: self._built(spec) for spec in scenario.sets}
        self._readers = {
            spec.name: {device.name: _Reader(scenario, device, self._faults_of(device.name)) for device in spec.devices}
            for spec in scenario.sets
        }
        self._listeners = {
            burst.name: _Listener(scenario, burst, spec.name, self._faults_of(burst.name))
            for spec in scenario.sets
            for burst in spec.bursts
        }
        self.burst_sensors: Mapping[str, BurstSpec] = {name: found.spec for name, found in self._listeners.items()}

    def _built(self, spec: SetSpec) -> MachineSet:
        faults = tuple(fault for fault in self.scenario.faults if fault.set == spec.name)
        runs = [(run.at_s, run.on) for run in spec.runs]
        warm = spec.start == "running"
        return MachineSet(
            parameters_of(spec),
            self.scenario.seed,
            spec.name,
            faults_at=lambda t_s: machine_faults_at(faults, t_s),
            runs=runs,
            running=warm,
            ambient_degc=spec.ambient_degc,
        )

    def _faults_of(self, sensor: str) -> tuple[FaultSpec, ...]:
        return tuple(f for f in self.scenario.faults if f.id in SENSOR_FAULTS and f.sensor == sensor)

    def machine_set(self, name: str) -> MachineSet:
        """The physics of one set, for what the scenario's sensors do not show."""
        return self._machines[name]

    def state(self, set_name: str, t_s: float) -> SetState:
        """Everything true of one set."""
        return self._machines[set_name].state_at(t_s)

    def scalars(self, set_name: str, t_s: float) -> dict[str, dict[str, float]]:
        """What the devices of a set show at `t_s`: sensor -> point -> value; NaN where the device has none.

        A device renews its values on its own update interval and shows the last ones in between. A device that does not
        answer (fault sensor_silent) is missing.
        """
        shown = {name: self.device(set_name, name, t_s) for name in self._readers[set_name]}
        return {name: values for name, values in shown.items() if values is not None}

    def device(self, set_name: str, sensor: str, t_s: float) -> dict[str, float] | None:
        """One device's points as `scalars` has them; None while it does not answer."""
        return self._readers[set_name][sensor].read(self._machines[set_name], t_s)

    def burst(self, sensor: str, index: int) -> tuple[F32, BurstMeta]:
        """Burst number `index` (>= 0) of a sensor, taken at index * interval_s.

        Returns: samples float32 (n_axes, n_samples) in m/s2, the caller's own; what the sensor says of them.
        Raises: KeyError: no such sensor. LookupError: the sensor is silent then (fault sensor_silent).
        """
        listener = self._listeners[sensor]
        return listener.take(self._machines[listener.set_name], index)

    def truth(self, t_s: float) -> list[Truth]:
        """One row per machine, or one per fault where it has any."""
        return [
            row
            for spec in self.scenario.sets
            for row in set_truth(spec, self.scenario.faults, self._machines[spec.name].state_at(t_s), t_s)
        ]

    def write_truth(self, path: Path, every_s: float = 1.0, duration_s: float | None = None) -> int:
        """The truth as JSON lines, one moment every `every_s`; returns the number of lines."""
        end_s = self.scenario.duration_s if duration_s is None else duration_s
        n_lines = 0
        with path.open("w", encoding="utf-8") as out:
            for step in range(math.floor(end_s / every_s + 1e-9) + 1):
                for row in self.truth(step * every_s):
                    out.write(json.dumps(asdict(row)) + "\n")
                    n_lines += 1
        return n_lines


def set_truth(spec: SetSpec, faults: Iterable[FaultSpec], state: SetState, t_s: float) -> Iterator[Truth]:
    """One row per machine of a set, or one per fault where it has any; faults of other sets are passed over."""
    active = [fault for fault in faults if fault.set == spec.name and fault.severity(t_s) > 0.0]
    for machine, places in (
        (spec.motor, ("motor_de", "motor")),
        (spec.pump, ("pump_de", "pump", "suction", "discharge")),
    ):
        rows = [row for fault in active for row in _fault_rows(spec, fault, state, t_s, machine=machine, places=places)]
        yield from rows or [Truth(t_s, machine, state.mode)]


def _fault_rows(
    spec: SetSpec, fault: FaultSpec, state: SetState, t_s: float, *, machine: str, places: tuple[str, ...]
) -> Iterator[Truth]:
    """A fault's row for one machine, if it concerns it; one of the shaft concerns both."""
    severity = fault.severity(t_s)
    if fault.sensor is not None:
        sensors: list[DeviceSpec | BurstSpec] = [*spec.devices, *spec.bursts]
        place = next(sensor.place for sensor in sensors if sensor.name == fault.sensor)
        if place in places:
            yield Truth(t_s, machine, state.mode, fault.id, severity, fault.onset_s, fault.sensor)
    elif fault.place in places:
        yield Truth(t_s, machine, state.mode, fault.id, severity, fault.onset_s)
    elif fault.id in OF_THE_SHAFT:
        felt = felt_at(state.faults, places[0]).get(fault.id, 0.0)
        yield Truth(t_s, machine, state.mode, fault.id, felt, fault.onset_s)


def _seen_at_s(faults: Iterable[FaultSpec], t_s: float) -> float:
    """When a sensor last looked: now, or at the onset of its being stuck."""
    return next((fault.onset_s for fault in faults if fault.id == "sensor_stuck" and fault.severity(t_s) > 0.0), t_s)


class _Reader:
    """One field device: renews its values on its interval, with its own bias and noise, and fails as told."""

    def __init__(self, scenario: Scenario, spec: DeviceSpec, faults: tuple[FaultSpec, ...]) -> None:
        self.spec = spec
        self._seed = scenario.seed
        self._faults = faults
        self._instrument = INSTRUMENTS[spec.device]
        self._bias = generator(scenario.seed, f"bias {spec.name}").standard_normal(N_NOISE).clip(-2.0, 2.0).tolist()
        self._noise = StepNoise(scenario.seed, f"noise {spec.name}", N_NOISE)
        self._held: tuple[int, dict[str, float]] | None = None
        self._lock = threading.Lock()

    def read(self, machines: MachineSet, t_s: float) -> dict[str, float] | None:
        """Point -> value; None while the device is silent."""
        severities = sensor_faults_at(self._faults, self.spec.name, t_s)
        if is_absent(severities, self._seed, self.spec.name, t_s):
            return None
        update = math.floor(_seen_at_s(self._faults, t_s) / self.spec.update_interval_s + 1e-6)
        with self._lock:
            values = self._renewed(machines, update)
        return shown(values, severities, self._seed, self.spec.name, update * self.spec.update_interval_s)

    def _renewed(self, machines: MachineSet, update: int) -> dict[str, float]:
        if self._held is None or self._held[0] != update:
            state = machines.state_at(update * self.spec.update_interval_s)
            values = self._instrument(machines.view(state), self._noise.row(update), self._bias, self.spec.place)
            self._held = (update, values)
        return self._held[1]


class _Listener:
    """One accelerometer: true waveform of its place, then its own faults of measurement."""

    def __init__(self, scenario: Scenario, spec: BurstSpec, set_name: str, faults: tuple[FaultSpec, ...]) -> None:
        self.spec = spec
        self.set_name = set_name
        self._seed = scenario.seed
        self._faults = faults
        self._sensor = BurstSensor(spec.model, generator(scenario.seed, f"mount {spec.name}"))
        self._rows = [AXES.index(axis) for axis in spec.axes]

    def take(self, machines: MachineSet, index: int) -> tuple[F32, BurstMeta]:
        start_s = index * self.spec.interval_s
        severities = sensor_faults_at(self._faults, self.spec.name, start_s)
        silent = is_absent(severities, self._seed, self.spec.name, start_s) or "sensor_sentinel" in severities
        if silent or lost_in_parts(severities, self._seed, self.spec.name, start_s):
            raise LookupError(f"{self.spec.name} sends nothing at {start_s} s")
        taken = math.floor(_seen_at_s(self._faults, start_s) / self.spec.interval_s + 1e-6)
        samples = self._measured(machines, taken, severities)
        return samples, burst_meta(self.spec, self._sensor, samples, index, start_s)

    def _measured(self, machines: MachineSet, index: int, severities: Mapping[str, float]) -> F32:
        state = machines.state_at(index * self.spec.interval_s)
        point = machines.points[self.spec.place]
        levels = machines.levels(state, self.spec.place)
        rng = generator(self._seed, f"burst {self.spec.name}", index)
        rate_hz = sampled_hz(severities, burst_rate_hz(self.spec))
        truth = point.waveform(levels, rate_hz, self.spec.n_samples, rng)
        samples = self._sensor.sense(truth, rate_hz, rng)
        return heard(samples, severities, self._sensor, rate_hz, rng)[self._rows]
