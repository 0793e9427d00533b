"""The life of one set over months, in steps of any length: scalars of its field devices, and a burst where one is asked for.

`Plant` integrates every half second, as a demo is polled; `Life` jumps. Between two steps the operating point is taken as it
was (starts and stops fall where they fall), and every lag is exact for the interval. Same set, seed, service, faults and
times: same bytes. Faults take no random number, so two lives that differ in a fault are one life up to its onset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator import motor as motors
from simulator import pump as pumps
from simulator.duty import DAY_S, Order, Schedule, Service
from simulator.effects import Severities, electrics_of, hydraulics_of
from simulator.machine_set import (
    COAST_TIME_CONSTANT_S,
    LEAST_VALVE_RATIO,
    LEVEL_TIME_CONSTANT_S,
    LEVEL_WANDER_BAR,
    LINE_WANDER_HZ,
    RAMP_HZ_S,
    SPEED_WANDER_RATIO,
    STANDSTILL_RPM,
    VALVE_TIME_CONSTANT_S,
    VOLTAGE_TIME_CONSTANT_S,
    VOLTAGE_WANDER_RATIO,
    SetState,
    Surroundings,
    Warmth,
    drifted,
    driven,
    levels_at,
    steady_state,
    view_of,
    warmed,
)
from simulator.motor import MotorPoint
from simulator.pump import PumpPoint
from simulator.scenario import (
    AXES,
    BurstMeta,
    BurstSpec,
    FaultSpec,
    SetSpec,
    Truth,
    burst_meta,
    burst_rate_hz,
    machine_faults_at,
    parameters_of,
    sensor_faults_at,
    set_truth,
)
from simulator.sensor_faults import heard, is_absent, lost_in_parts, sampled_hz, shown
from simulator.sensors import INSTRUMENTS, N_NOISE, BurstSensor
from simulator.variation import StepNoise, generator
from simulator.vibration import MeasuringPoint

F32 = NDArray[np.float32]
WEATHER_TIME_CONSTANT_S = 1.5 * DAY_S
N_PROCESS_NOISE = 6  # valve, voltage, level, weather, line frequency, speed


@dataclass(slots=True)
class _Wander:
    """What drifts by itself: valve, voltage, suction level and weather, each of unit variance."""

    valve: float = 0.0
    voltage: float = 0.0
    level: float = 0.0
    weather: float = 0.0

    def advance(self, step_s: float, noise: Sequence[float]) -> None:
        """Go on by a step, with four standard normal numbers."""
        self.valve = drifted(self.valve, noise[0], step_s / VALVE_TIME_CONSTANT_S)
        self.voltage = drifted(self.voltage, noise[1], step_s / VOLTAGE_TIME_CONSTANT_S)
        self.level = drifted(self.level, noise[2], step_s / LEVEL_TIME_CONSTANT_S)
        self.weather = drifted(self.weather, noise[3], step_s / WEATHER_TIME_CONSTANT_S)


class Life:
    """One set, lived forward from time 0 (midnight before a Monday), where it runs and is warm.

    Args:
        spec: the set with its sensors, as in a scenario; `runs` and the sensors' intervals do not matter here.
        seed: of everything that happens by chance; which machines these are is `spec.seed`.
        faults: of this set (others are passed over), of machines and of sensors.
    """

    def __init__(
        self, spec: SetSpec, seed: int, service: Service | None = None, faults: Sequence[FaultSpec] = ()
    ) -> None:
        self.spec = spec
        self.parameters = parameters_of(spec)
        self._seed = seed
        self._service = service or Service()
        self._faults = tuple(fault for fault in faults if fault.set == spec.name)
        self._points = {
            "motor_de": MeasuringPoint(self.parameters.motor_de),
            "pump_de": MeasuringPoint(self.parameters.pump_de),
        }
        self._schedule = Schedule(self._service, seed, spec.name)
        self._noise = StepNoise(seed, f"life {spec.name}", N_PROCESS_NOISE + N_NOISE * len(spec.devices))
        self._bias = {
            device.name: generator(seed, f"bias {device.name}").standard_normal(N_NOISE).clip(-2.0, 2.0).tolist()
            for device in spec.devices
        }
        self._bursts = {burst.name: burst for burst in spec.bursts}
        self._accelerometers = {
            burst.name: BurstSensor(burst.model, generator(seed, f"mount {burst.name}")) for burst in spec.bursts
        }
        self._stuck: dict[str, dict[str, float]] = {}
        self._stuck_bursts: dict[str, F32] = {}
        self._wander = _Wander()
        self._n_steps = 0
        order = self._schedule.at(0.0)
        self.state = steady_state(self.parameters, self._surroundings(order, 0.0), machine_faults_at(self._faults, 0.0))

    # -- scalars -----------------------------------------------------------------------------------------------------

    def step(self, t_s: float) -> dict[str, dict[str, float]]:
        """Go on to a time, and what the field devices show there: sensor -> point -> value.

        NaN where a device says "not available"; a device that does not answer is missing.
        Raises: ValueError: a time that is not after the last one.
        """
        if t_s <= self.state.t_s and self._n_steps > 0:
            raise ValueError(f"a life goes forward: step to a time after {self.state.t_s} s, not to {t_s} s")
        noise = self._noise.row(self._n_steps)
        self._n_steps += 1
        self._advance(t_s, noise)
        view = view_of(self.parameters, self._points, self.state)
        told: dict[str, dict[str, float]] = {}
        for i, device in enumerate(self.spec.devices):
            first = N_PROCESS_NOISE + i * N_NOISE
            seen = INSTRUMENTS[device.device](
                view, noise[first : first + N_NOISE], self._bias[device.name], device.place
            )
            answer = self._told(device.name, seen, t_s)
            if answer is not None:
                told[device.name] = answer
        return told

    def _told(self, sensor: str, seen: dict[str, float], t_s: float) -> dict[str, float] | None:
        """What a device makes of what it sees; None where it does not answer."""
        severities = sensor_faults_at(self._faults, sensor, t_s)
        if "sensor_stuck" in severities:
            seen = self._stuck.setdefault(sensor, seen)
        else:
            self._stuck.pop(sensor, None)
        if not severities:
            return seen
        return (
            None if is_absent(severities, self._seed, sensor, t_s) else shown(seen, severities, self._seed, sensor, t_s)
        )

    def _advance(self, t_s: float, noise: Sequence[float]) -> None:
        before = self.state
        self._wander.advance(t_s - before.t_s, noise)
        order = self._schedule.at(t_s)
        faults = machine_faults_at(self._faults, t_s)
        around = self._surroundings(order, noise[4])
        frequency_hz, speed_rpm, motor, pump = self._driven(order, around, t_s, faults)
        speed_rpm *= 1.0 + SPEED_WANDER_RATIO * noise[5]
        warm = self._warmed(before, motor, pump, around.ambient_degc, faults, t_s)
        self.state = SetState(
            t_s,
            _mode(order, frequency_hz, speed_rpm),
            frequency_hz,
            speed_rpm,
            around.valve_ratio,
            around.voltage_ratio,
            around.line_frequency_hz,
            around.ambient_degc,
            motor,
            pump,
            warm.motor,
            warm.pump_bearing_degc,
            faults,
            around.water_degc,
            warm.liquid_rise_k,
        )

    def _surroundings(self, order: Order, line_noise: float) -> Surroundings:
        wander, ratio = self._wander, self.parameters.valve_wander_ratio
        return Surroundings(
            frequency_hz=order.duty.frequency_hz,
            valve_ratio=max(LEAST_VALVE_RATIO, order.duty.valve_ratio * (1.0 + ratio * wander.valve)),
            voltage_ratio=1.0 + VOLTAGE_WANDER_RATIO * wander.voltage,
            line_frequency_hz=50.0 + LINE_WANDER_HZ * line_noise,
            ambient_degc=self.spec.ambient_degc + order.ambient_k + self._service.weather_k * wander.weather,
            level_bar=LEVEL_WANDER_BAR * wander.level,
            water_degc=order.water_degc,
        )

    def _driven(
        self, order: Order, around: Surroundings, t_s: float, faults: Severities
    ) -> tuple[float, float, MotorPoint, PumpPoint]:
        """Frequency, speed and the two machines: run up by the drive, in balance, coasting or at rest."""
        since_s = t_s - order.since_s
        if order.on:
            given = replace(around, frequency_hz=min(around.frequency_hz, RAMP_HZ_S * since_s))
            return given.frequency_hz, *driven(self.parameters, given, faults)
        at_stop_rpm = motors.speed_rpm(self.parameters.motor, around.frequency_hz, 0.0)
        speed_rpm = at_stop_rpm * math.exp(-since_s / COAST_TIME_CONSTANT_S)
        speed_rpm = speed_rpm if speed_rpm >= STANDSTILL_RPM else 0.0
        pump = pumps.operate(
            self.parameters.pump, speed_rpm, hydraulics_of(around.valve_ratio, around.level_bar, faults)
        )
        motor = motors.operate(self.parameters.motor, 0.0, 0.0, speed_rpm, around.voltage_ratio, electrics_of(faults))
        return 0.0, speed_rpm, motor, pump

    def _warmed(
        self, before: SetState, motor: MotorPoint, pump: PumpPoint, ambient_degc: float, faults: Severities, t_s: float
    ) -> Warmth:
        """The warmth at `t_s`: as it ran before until it was switched, then as it runs now."""
        now = Warmth(before.temperatures, before.pump_bearing_degc, before.liquid_rise_k)
        at_s = before.t_s
        for edge_s in self._schedule.edges(before.t_s, t_s)[:1]:
            now = warmed(
                *(self.parameters, now, before.motor, before.pump),
                ambient_degc=ambient_degc,
                faults=before.faults,
                step_s=edge_s - at_s,
            )
            at_s = edge_s
        return warmed(self.parameters, now, motor, pump, ambient_degc=ambient_degc, faults=faults, step_s=t_s - at_s)

    # -- bursts ------------------------------------------------------------------------------------------------------

    def burst(self, sensor: str) -> tuple[F32, BurstMeta] | None:
        """What an accelerometer sends at the time of the last step; None where it sends nothing or not all of it.

        Returns: samples float32 (n_axes, n_samples) in m/s2, the caller's own; what the sensor says of them.
        Raises: KeyError: no such sensor.
        """
        spec, t_s = self._bursts[sensor], self.state.t_s
        severities = sensor_faults_at(self._faults, sensor, t_s)
        if "sensor_stuck" not in severities:
            self._stuck_bursts.pop(sensor, None)
        elif sensor in self._stuck_bursts:
            return self._sent(spec, self._stuck_bursts[sensor].copy())
        if is_absent(severities, self._seed, sensor, t_s) or "sensor_sentinel" in severities:
            return None
        if lost_in_parts(severities, self._seed, sensor, t_s):
            return None
        samples = self._measured(spec, severities)
        if "sensor_stuck" in severities:
            self._stuck_bursts[sensor] = samples.copy()
        return self._sent(spec, samples)

    def _measured(self, spec: BurstSpec, severities: Mapping[str, float]) -> F32:
        rng = generator(self._seed, f"burst {spec.name}", round(1e3 * self.state.t_s))
        levels = levels_at(self.parameters, self._points, self.state, spec.place)
        rate_hz = sampled_hz(severities, burst_rate_hz(spec))
        accelerometer = self._accelerometers[spec.name]
        truth = self._points[spec.place].waveform(levels, rate_hz, spec.n_samples, rng)
        samples = accelerometer.sense(truth, rate_hz, rng)
        samples = heard(samples, severities, accelerometer, rate_hz, rng)
        return samples[[AXES.index(axis) for axis in spec.axes]]

    def _sent(self, spec: BurstSpec, samples: F32) -> tuple[F32, BurstMeta]:
        return samples, burst_meta(spec, self._accelerometers[spec.name], samples, self._n_steps, self.state.t_s)

    # -- truth -------------------------------------------------------------------------------------------------------

    def truth(self) -> list[Truth]:
        """What is really so at the last step: one row per machine, or one per fault where it has any."""
        return list(set_truth(self.spec, self._faults, self.state, self.state.t_s))


def _mode(order: Order, frequency_hz: float, speed_rpm: float) -> str:
    if order.on:
        return "running" if frequency_hz >= order.duty.frequency_hz else "starting"
    return "coasting" if speed_rpm > 0.0 else "off"
