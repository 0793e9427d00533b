"""A motor and its pump on one shaft: operating point, temperatures, run-up and coast-down, integrated in fixed steps.

The state at a time depends on the seed and the time alone: steps have one length, and each step's random numbers are
addressed by the step's number. Whoever asks, however often, gets the same.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simulator import motor as motors
from simulator import pump as pumps
from simulator.motor import MotorParameters, MotorPoint, Temperatures
from simulator.pump import Hydraulics, PumpParameters, PumpPoint
from simulator.sensors import View
from simulator.variation import StepNoise, generator
from simulator.vibration import (
    MOTOR_DE,
    PUMP_DE,
    Conditions,
    Impulses,
    Indicators,
    Levels,
    MeasuringPoint,
    PointParameters,
)

STEP_S = 0.5
HISTORY_STEPS = 2048
RAMP_HZ_S = 5.0  # the drive's acceleration
COAST_TIME_CONSTANT_S = 2.5
DAY_S = 86_400.0
VALVE_TIME_CONSTANT_S = 20.0
LEVEL_TIME_CONSTANT_S = 3600.0
LEVEL_WANDER_BAR = 0.02  # 20 cm of water in the suction vessel
PUMP_BEARING_RISE_K = 18.0
NO_FAULTS: Mapping[str, Mapping[str, float]] = {}
Severities = Mapping[str, Mapping[str, float]]  # place -> fault id -> severity


@dataclass(frozen=True)
class SetParameters:
    """One set: the two machines, their measuring points, and how they hang together.

    Attributes:
        crosstalk_ratio: share of one housing's impacts and hiss that the other hears (0.01, -40 dB: one base frame).
        valve_wander_ratio: standard deviation of the circuit's resistance, the source of natural change in load.
    """

    motor: MotorParameters = field(default_factory=MotorParameters)
    pump: PumpParameters = field(default_factory=PumpParameters)
    motor_de: PointParameters = MOTOR_DE
    pump_de: PointParameters = PUMP_DE
    crosstalk_ratio: float = 0.01
    valve_wander_ratio: float = 0.03

    def varied(self, rng: np.random.Generator, spread: float = 0.3) -> SetParameters:
        """Another set of the same size, every parameter drawn anew."""
        return replace(
            self,
            motor=self.motor.varied(rng, spread),
            pump=self.pump.varied(rng, spread),
            motor_de=self.motor_de.varied(rng, spread),
            pump_de=self.pump_de.varied(rng, spread),
        )


@dataclass(slots=True)
class SetState:
    """Everything true of one set at one step."""

    t_s: float
    mode: str  # off, starting, running, coasting
    frequency_hz: float
    speed_rpm: float
    valve_ratio: float
    voltage_ratio: float
    line_frequency_hz: float
    ambient_degc: float
    motor: MotorPoint
    pump: PumpPoint
    temperatures: Temperatures
    pump_bearing_degc: float
    faults: Severities


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the plant gives a set: command, supply, process and weather at one instant."""

    frequency_hz: float = 50.0
    valve_ratio: float = 1.0
    voltage_ratio: float = 1.0
    line_frequency_hz: float = 50.0
    ambient_degc: float = 22.0
    level_bar: float = 0.0


def hydraulics_of(valve_ratio: float, level_bar: float, faults: Severities) -> Hydraulics:
    """What the faults at place "pump" mean for the water."""
    at_pump = faults.get("pump", {})
    return Hydraulics(
        valve_ratio,
        suction_loss=at_pump.get("cavitation", 0.0),
        dry=at_pump.get("dry_run", 0.0),
        wear=at_pump.get("impeller_wear", 0.0),
        level_bar=level_bar,
    )


def felt_at(faults: Severities, place: str) -> dict[str, float]:
    """The faults that shake one end: its own, and a misaligned coupling's other end at six tenths."""
    felt = dict(faults.get(place, {}))
    other = faults.get("pump_de" if place == "motor_de" else "motor_de", {})
    if "misalignment" in other:
        felt["misalignment"] = max(felt.get("misalignment", 0.0), 0.6 * other["misalignment"])
    return felt


def bearing_heat_k(faults: Mapping[str, float]) -> float:
    """By how much faults at a bearing warm it in the end."""
    spall = max(faults.get(f"bearing_{part}", 0.0) for part in ("outer_race", "inner_race", "ball_cage"))
    return 15.0 * spall**3 + 8.0 * faults.get("misalignment", 0.0) + 12.0 * faults.get("lubrication", 0.0)


def steady_state(
    parameters: SetParameters, around: Surroundings, faults: Severities = NO_FAULTS, t_s: float = 0.0
) -> SetState:
    """A set that has run like this for hours. Speed and torque depend on each other; a few rounds settle them."""
    torque = 0.75 if around.frequency_hz > 0.0 else 0.0
    water = hydraulics_of(around.valve_ratio, around.level_bar, faults)
    for _ in range(5):
        speed = motors.speed_rpm(parameters.motor, around.frequency_hz, torque)
        pump = pumps.operate(parameters.pump, speed, water)
        torque = motors.torque_ratio_of(parameters.motor, pump.shaft_power_kw, speed)
    motor = motors.operate(parameters.motor, around.frequency_hz, pump.shaft_power_kw, speed, around.voltage_ratio)
    friction = speed / parameters.motor.rated_speed_rpm
    heat = bearing_heat_k(felt_at(faults, "motor_de"))
    warm = motors.settled(parameters.motor, motor.loss_ratio, friction, heat, around.ambient_degc)
    pump_bearing = around.ambient_degc + PUMP_BEARING_RISE_K * friction + bearing_heat_k(felt_at(faults, "pump_de"))
    mode = "running" if around.frequency_hz > 0.0 else "off"
    return SetState(
        t_s,
        mode,
        around.frequency_hz,
        speed,
        around.valve_ratio,
        around.voltage_ratio,
        around.line_frequency_hz,
        around.ambient_degc,
        motor,
        pump,
        warm,
        pump_bearing,
        faults,
    )


class MachineSet:
    """One set over time.

    Args:
        faults_at: severities by place and fault at a time. runs: (time, on) commands, in order of time.
        running: warm and running at t = 0; else cold and standing still.
    """

    def __init__(
        self,
        parameters: SetParameters,
        seed: int,
        name: str,
        *,
        faults_at: Callable[[float], Severities] = lambda t_s: NO_FAULTS,
        runs: Sequence[tuple[float, bool]] = (),
        running: bool = True,
        ambient_degc: float = 22.0,
    ) -> None:
        self.parameters = parameters
        self.points = {"motor_de": MeasuringPoint(parameters.motor_de), "pump_de": MeasuringPoint(parameters.pump_de)}
        self._faults_at = faults_at
        self._runs = tuple(runs)
        self._starts_running = running
        self._ambient_degc = ambient_degc
        self._noise = StepNoise(seed, f"set {name}", 5)
        self._day_phase = generator(seed, f"day {name}").uniform(0.0, math.tau)
        self._lock = threading.Lock()
        self._reset()

    def state_at(self, t_s: float) -> SetState:
        """The state at the last whole step up to `t_s` (>= 0). Steps that are long gone are integrated again."""
        step = max(0, math.floor(t_s / STEP_S + 1e-6))
        with self._lock:
            if step < self._step - len(self._history) + 1:
                self._reset()
            while self._step < step:
                self._advance()
            return self._history[step - self._step - 1]

    def _reset(self) -> None:
        self._step = 0
        self._valve = 0.0
        self._voltage = 0.0
        self._level = 0.0
        around = Surroundings(
            frequency_hz=self.parameters.motor.rated_frequency_hz if self._starts_running else 0.0,
            ambient_degc=self._ambient_at(0.0),
        )
        self._history = deque([steady_state(self.parameters, around, self._faults_at(0.0))], maxlen=HISTORY_STEPS)

    def _ambient_at(self, t_s: float) -> float:
        return self._ambient_degc + 5.0 * math.sin(math.tau * t_s / DAY_S + self._day_phase)

    def _commanded(self, t_s: float) -> bool:
        on = self._starts_running
        for at_s, run in self._runs:
            if at_s > t_s:
                break
            on = run
        return on

    def _advance(self) -> None:
        """One step: command, process noise, hydraulics, motor, heat."""
        self._step += 1
        t_s = self._step * STEP_S
        before = self._history[-1]
        noise = self._noise.row(self._step)
        self._valve = _drifted(self._valve, noise[0], VALVE_TIME_CONSTANT_S)
        self._voltage = _drifted(self._voltage, noise[1], 60.0)
        self._level = _drifted(self._level, noise[4], LEVEL_TIME_CONSTANT_S)
        valve = max(0.5, 1.0 + self.parameters.valve_wander_ratio * self._valve)
        voltage = 1.0 + 0.003 * self._voltage
        faults = self._faults_at(t_s)
        frequency, speed, mode = self._shaft(before, self._commanded(t_s), noise[2])
        pump = pumps.operate(self.parameters.pump, speed, hydraulics_of(valve, LEVEL_WANDER_BAR * self._level, faults))
        motor = motors.operate(self.parameters.motor, frequency, pump.shaft_power_kw, speed, voltage)
        ambient = self._ambient_at(t_s)
        friction = speed / self.parameters.motor.rated_speed_rpm
        heat = bearing_heat_k(felt_at(faults, "motor_de"))
        warm = motors.warm(
            self.parameters.motor,
            before.temperatures,
            loss_ratio=motor.loss_ratio,
            friction_ratio=friction,
            extra_bearing_k=heat,
            ambient_degc=ambient,
            step_s=STEP_S,
        )

        end = ambient + PUMP_BEARING_RISE_K * friction + bearing_heat_k(felt_at(faults, "pump_de"))
        pump_bearing = end + (before.pump_bearing_degc - end) * math.exp(-STEP_S / 1500.0)
        line_hz = 50.0 + 0.008 * noise[3]
        self._history.append(
            SetState(
                t_s, mode, frequency, speed, valve, voltage, line_hz, ambient, motor, pump, warm, pump_bearing, faults
            )
        )

    def _shaft(self, before: SetState, on: bool, noise: float) -> tuple[float, float, str]:
        """Output frequency, speed and mode: the drive ramps up, and lets go when it stops."""
        if on:
            target = self.parameters.motor.rated_frequency_hz
            frequency = min(target, max(before.frequency_hz, 0.0) + RAMP_HZ_S * STEP_S)
            speed = motors.speed_rpm(self.parameters.motor, frequency, before.motor.torque_ratio)
            return frequency, speed * (1.0 + 2e-4 * noise), "running" if frequency >= target else "starting"
        speed = before.speed_rpm * math.exp(-STEP_S / COAST_TIME_CONSTANT_S)
        if speed < 10.0:
            return 0.0, 0.0, "off"
        return 0.0, speed, "coasting"

    def levels(self, state: SetState, place: str) -> Levels:
        """What the housing at `place` does in `state`."""
        return levels_at(self.parameters, self.points, state, place)

    def view(self, state: SetState) -> View:
        """`state` as field devices see it."""
        return view_of(self.parameters, self.points, state)


def _drifted(value: float, noise: float, time_constant_s: float) -> float:
    """Ornstein-Uhlenbeck with unit variance, exact for the step."""
    keep = math.exp(-STEP_S / time_constant_s)
    return keep * value + math.sqrt(1.0 - keep * keep) * noise


def conditions_at(parameters: SetParameters, state: SetState, place: str) -> Conditions:
    """Under what one end vibrates."""
    dry = state.faults.get("pump", {}).get("dry_run", 0.0)
    best = parameters.pump.best_flow_m3_h * max(0.05, state.speed_rpm / parameters.pump.rated_speed_rpm)
    return Conditions(
        shaft_hz=state.speed_rpm / 60.0,
        line_hz=state.frequency_hz,
        torque_ratio=state.motor.torque_ratio,
        flow_ratio=state.pump.flow_m3_h / best if dry == 0.0 and state.frequency_hz > 0.0 else 1.0,
        wet_ratio=1.0 - dry,
        cavitation_db=state.pump.cavitation_db if place == "pump_de" else 0.0,
        faults=felt_at(state.faults, place),
    )


def levels_at(parameters: SetParameters, points: Mapping[str, MeasuringPoint], state: SetState, place: str) -> Levels:
    """One housing's levels, with what reaches it from the other through the base frame."""
    levels = points[place].levels(conditions_at(parameters, state, place))
    share = parameters.crosstalk_ratio
    disturbed = state.pump.cavitation_db > 0.0 or any(state.faults.get(end) for end in points)
    if share > 0.0 and disturbed:
        other = "pump_de" if place == "motor_de" else "motor_de"
        heard = points[other].levels(conditions_at(parameters, state, other))
        levels.impulses += tuple(Impulses(t.rate_hz, t.peak_g * share, t.zone_order) for t in heard.impulses)
        levels.burst_noise_g = math.hypot(levels.burst_noise_g, share * heard.burst_noise_g)
    return levels


def view_of(parameters: SetParameters, points: Mapping[str, MeasuringPoint], state: SetState) -> View:
    """The true state in the quantities that field devices show."""

    def housing(place: str) -> float:
        return state.temperatures.bearing_degc if place == "motor_de" else state.pump_bearing_degc

    made: dict[str, Levels] = {}

    def vibration(place: str, axis: int) -> Indicators:
        if place not in made:
            made[place] = levels_at(parameters, points, state, place)
        return points[place].indicators(made[place], axis)

    return View(
        speed_rpm=state.speed_rpm,
        frequency_hz=state.frequency_hz,
        torque_ratio=state.motor.torque_ratio,
        shaft_power_kw=state.motor.shaft_power_kw,
        motor_current_a=state.motor.current_a,
        voltage_v=parameters.motor.supply_voltage_v * state.voltage_ratio,
        supply_power_kw=state.motor.supply_power_kw,
        supply_current_a=state.motor.supply_current_a,
        power_factor_ratio=state.motor.power_factor_ratio,
        line_frequency_hz=state.line_frequency_hz,
        suction_pressure_bar=state.pump.suction_pressure_bar,
        discharge_pressure_bar=state.pump.discharge_pressure_bar,
        water_degc=20.0,
        roughness=min(1.0, state.pump.cavitation_db / 12.0),
        housing_degc=housing,
        vibration=vibration,
    )
