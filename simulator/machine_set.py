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
from simulator.duty import DAY_S
from simulator.effects import NO_FAULTS, Severities, bearing_heat_k, electrics_of, felt_at, hydraulics_of
from simulator.motor import MotorParameters, MotorPoint, Temperatures
from simulator.pump import PumpParameters, PumpPoint
from simulator.sensors import View
from simulator.signatures import Conditions
from simulator.variation import StepNoise, generator
from simulator.vibration import (
    MOTOR_DE,
    PUMP_DE,
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
STANDSTILL_RPM = 10.0
VALVE_TIME_CONSTANT_S = 20.0
LEVEL_TIME_CONSTANT_S = 3600.0
LEVEL_WANDER_BAR = 0.02  # 20 cm of water in the suction vessel
VOLTAGE_TIME_CONSTANT_S = 60.0
VOLTAGE_WANDER_RATIO = 0.003
LINE_WANDER_HZ = 0.008
SPEED_WANDER_RATIO = 2e-4
LEAST_VALVE_RATIO = 0.5
PUMP_BEARING_RISE_K = 18.0
PUMP_BEARING_TIME_CONSTANT_S = 1500.0
LIQUID_TIME_CONSTANT_S = 600.0
WATER_DEGC = 20.0
TURNS_BACK_BELOW = 0.65  # of best flow


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
    water_degc: float = WATER_DEGC  # as it flows in
    liquid_rise_k: float = 0.0  # of the liquid in the pump's casing above that


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the plant gives a set: command, supply, process and weather at one instant."""

    frequency_hz: float = 50.0
    valve_ratio: float = 1.0
    voltage_ratio: float = 1.0
    line_frequency_hz: float = 50.0
    ambient_degc: float = 22.0
    level_bar: float = 0.0
    water_degc: float = WATER_DEGC


def driven(
    parameters: SetParameters, around: Surroundings, faults: Severities = NO_FAULTS
) -> tuple[float, MotorPoint, PumpPoint]:
    """Speed, motor and pump in balance. Speed and torque depend on each other; a few rounds settle them."""
    electrics = electrics_of(faults)
    water = hydraulics_of(around.valve_ratio, around.level_bar, faults)
    torque = 0.75 if around.frequency_hz > 0.0 else 0.0
    for _ in range(5):
        speed = motors.speed_rpm(parameters.motor, around.frequency_hz, torque * (1.0 + electrics.extra_slip_ratio))
        pump = pumps.operate(parameters.pump, speed, water)
        shaft_kw = pump.shaft_power_kw * (1.0 + electrics.drag_ratio)
        torque = motors.torque_ratio_of(parameters.motor, shaft_kw, speed)
    motor = motors.operate(parameters.motor, around.frequency_hz, shaft_kw, speed, around.voltage_ratio, electrics)
    return speed, motor, pump


def steady_state(
    parameters: SetParameters, around: Surroundings, faults: Severities = NO_FAULTS, t_s: float = 0.0
) -> SetState:
    """A set that has run like this for hours."""
    speed, motor, pump = driven(parameters, around, faults)
    friction = speed / parameters.motor.rated_speed_rpm
    heat = bearing_heat_k(felt_at(faults, "motor_de"))
    lost_cooling = electrics_of(faults).lost_cooling
    warm = motors.settled(parameters.motor, motor.loss_ratio, friction, heat, around.ambient_degc, lost_cooling)
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
        around.water_degc,
        pump.liquid_rise_k,
    )


@dataclass(frozen=True, slots=True)
class Warmth:
    """What is warm in a set: the motor, the pump's bearing, and the liquid in its casing above what flows in."""

    motor: Temperatures
    pump_bearing_degc: float
    liquid_rise_k: float


def warmed(
    parameters: SetParameters,
    now: Warmth,
    motor: MotorPoint,
    pump: PumpPoint,
    *,
    ambient_degc: float,
    faults: Severities,
    step_s: float,
) -> Warmth:
    """The warmth one step later, when the set runs through the step as given; exact for any length of it."""
    friction = motor.speed_rpm / parameters.motor.rated_speed_rpm
    warm = motors.warm(
        parameters.motor,
        now.motor,
        loss_ratio=motor.loss_ratio,
        friction_ratio=friction,
        extra_bearing_k=bearing_heat_k(felt_at(faults, "motor_de")),
        ambient_degc=ambient_degc,
        step_s=step_s,
        lost_cooling=electrics_of(faults).lost_cooling,
    )
    end = ambient_degc + PUMP_BEARING_RISE_K * friction + bearing_heat_k(felt_at(faults, "pump_de"))
    pump_bearing = motors.toward(now.pump_bearing_degc, end, step_s / PUMP_BEARING_TIME_CONSTANT_S)
    liquid_k = motors.toward(now.liquid_rise_k, pump.liquid_rise_k, step_s / LIQUID_TIME_CONSTANT_S)
    return Warmth(warm, pump_bearing, liquid_k)


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
        self._valve = drifted(self._valve, noise[0], STEP_S / VALVE_TIME_CONSTANT_S)
        self._voltage = drifted(self._voltage, noise[1], STEP_S / VOLTAGE_TIME_CONSTANT_S)
        self._level = drifted(self._level, noise[4], STEP_S / LEVEL_TIME_CONSTANT_S)
        valve = max(LEAST_VALVE_RATIO, 1.0 + self.parameters.valve_wander_ratio * self._valve)
        voltage = 1.0 + VOLTAGE_WANDER_RATIO * self._voltage
        faults = self._faults_at(t_s)
        electrics = electrics_of(faults)
        frequency, speed, mode = self._shaft(before, self._commanded(t_s), noise[2], electrics.extra_slip_ratio)
        pump = pumps.operate(self.parameters.pump, speed, hydraulics_of(valve, LEVEL_WANDER_BAR * self._level, faults))
        shaft_kw = pump.shaft_power_kw * (1.0 + electrics.drag_ratio)
        motor = motors.operate(self.parameters.motor, frequency, shaft_kw, speed, voltage, electrics)
        ambient = self._ambient_at(t_s)
        warm = warmed(
            self.parameters,
            Warmth(before.temperatures, before.pump_bearing_degc, before.liquid_rise_k),
            motor,
            pump,
            ambient_degc=ambient,
            faults=faults,
            step_s=STEP_S,
        )
        self._history.append(
            SetState(
                t_s,
                mode,
                frequency,
                speed,
                valve,
                voltage,
                50.0 + LINE_WANDER_HZ * noise[3],
                ambient,
                motor,
                pump,
                warm.motor,
                warm.pump_bearing_degc,
                faults,
                liquid_rise_k=warm.liquid_rise_k,
            )
        )

    def _shaft(self, before: SetState, on: bool, noise: float, extra_slip_ratio: float) -> tuple[float, float, str]:
        """Output frequency, speed and mode: the drive ramps up, and lets go when it stops."""
        if on:
            target = self.parameters.motor.rated_frequency_hz
            frequency = min(target, max(before.frequency_hz, 0.0) + RAMP_HZ_S * STEP_S)
            torque = before.motor.torque_ratio * (1.0 + extra_slip_ratio)
            speed = motors.speed_rpm(self.parameters.motor, frequency, torque)
            return (
                frequency,
                speed * (1.0 + SPEED_WANDER_RATIO * noise),
                "running" if frequency >= target else "starting",
            )
        speed = before.speed_rpm * math.exp(-STEP_S / COAST_TIME_CONSTANT_S)
        if speed < STANDSTILL_RPM:
            return 0.0, 0.0, "off"
        return 0.0, speed, "coasting"

    def levels(self, state: SetState, place: str) -> Levels:
        """What the housing at `place` does in `state`."""
        return levels_at(self.parameters, self.points, state, place)

    def view(self, state: SetState) -> View:
        """`state` as field devices see it."""
        return view_of(self.parameters, self.points, state)


def drifted(value: float, noise: float, steps: float) -> float:
    """Ornstein-Uhlenbeck with unit variance, `steps` time constants later; exact for any step."""
    keep = math.exp(-steps)
    return keep * value + math.sqrt(1.0 - keep * keep) * noise


def conditions_at(parameters: SetParameters, state: SetState, place: str) -> Conditions:
    """Under what one end vibrates."""
    at_pump = state.faults.get("pump", {})
    dry = at_pump.get("dry_run", 0.0)
    best = parameters.pump.best_flow_m3_h * max(0.05, state.speed_rpm / parameters.pump.rated_speed_rpm)
    flow_ratio = state.pump.flow_m3_h / best if dry == 0.0 and state.frequency_hz > 0.0 else 1.0
    throttled = "recirculation" in at_pump or "dead_head" in at_pump
    turns_back = throttled and place == "pump_de" and state.frequency_hz > 0.0
    return Conditions(
        shaft_hz=state.speed_rpm / 60.0,
        line_hz=state.frequency_hz,
        torque_ratio=state.motor.torque_ratio,
        flow_ratio=flow_ratio,
        wet_ratio=1.0 - dry,
        cavitation_db=state.pump.cavitation_db if place == "pump_de" else 0.0,
        pole_pass_hz=max(0.0, 2.0 * state.frequency_hz - parameters.motor.n_poles * state.speed_rpm / 60.0),
        turned_back=max(0.0, 1.0 - flow_ratio / TURNS_BACK_BELOW) if turns_back else 0.0,
        gas=at_pump.get("air_entrainment", 0.0) if place == "pump_de" else 0.0,
        faults=felt_at(state.faults, place),
    )


def levels_at(parameters: SetParameters, points: Mapping[str, MeasuringPoint], state: SetState, place: str) -> Levels:
    """One housing's levels, with what reaches it from the other through the base frame."""
    levels = points[place].levels(conditions_at(parameters, state, place))
    share = parameters.crosstalk_ratio
    if share > 0.0 and (state.pump.cavitation_db > 0.0 or state.faults):
        other = "pump_de" if place == "motor_de" else "motor_de"
        heard = points[other].levels(conditions_at(parameters, state, other))
        levels.impulses += tuple(Impulses(t.rate_hz, t.peak_g * share, t.zone_order) for t in heard.impulses)
        levels.burst_noise_g = math.hypot(levels.burst_noise_g, share * heard.burst_noise_g)
        levels.rumble_g = math.hypot(levels.rumble_g, share * heard.rumble_g)
        levels.hump_g = math.hypot(levels.hump_g, share * heard.hump_g)
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
        water_degc=state.water_degc,
        liquid_degc=state.water_degc + state.liquid_rise_k,
        roughness=min(1.0, state.pump.cavitation_db / 12.0),
        housing_degc=housing,
        vibration=vibration,
        voltage_shares=state.motor.voltage_shares,
        current_shares=state.motor.current_shares,
        surge_ratio=state.pump.surge_ratio,
        beat_ratio=state.motor.beat_ratio,
    )
