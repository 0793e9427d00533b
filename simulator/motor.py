"""A squirrel-cage motor behind a drive: torque to speed, current and power; losses to temperatures.

The example is a 7.5 kW, 4-pole, IE3 motor: 1460 rpm, 14.4 A, 49 Nm, efficiency 0.904, power factor 0.83. Plain floats,
no arrays: a step must cost microseconds, because months are simulated.
Source: IEC 60034-30-1 class and the usual equivalent circuit reduced to its operating range; heat as first-order lags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulator.variation import varied_fields


@dataclass(frozen=True, slots=True)
class MotorParameters:
    """One motor with its drive. Temperatures are rises at rated load; VARIED says what differs between machines."""

    rated_power_kw: float = 7.5
    rated_speed_rpm: float = 1460.0
    n_poles: int = 4
    rated_current_a: float = 14.4
    rated_frequency_hz: float = 50.0
    supply_voltage_v: float = 230.9  # line to neutral
    fixed_loss_kw: float = 0.30  # iron, friction, fan
    load_loss_kw: float = 0.50  # copper and stray, at rated torque
    rated_power_factor_ratio: float = 0.83
    magnetising_ratio: float = 0.42  # no-load current, of rated
    drive_efficiency_ratio: float = 0.972
    drive_standby_kw: float = 0.035
    winding_rise_k: float = 31.0  # above the frame
    winding_time_constant_s: float = 360.0
    frame_rise_k: float = 39.0  # above ambient
    frame_time_constant_s: float = 2700.0
    bearing_rise_k: float = 24.0  # above ambient
    bearing_time_constant_s: float = 1800.0
    standstill_cooling_ratio: float = 2.5  # time constants without the fan

    @property
    def rated_torque_nm(self) -> float:
        return self.rated_power_kw * 1e3 / (self.rated_speed_rpm * math.tau / 60.0)

    @property
    def synchronous_speed_rpm(self) -> float:
        return 120.0 * self.rated_frequency_hz / self.n_poles

    def varied(self, rng: np.random.Generator, spread: float = 0.3) -> MotorParameters:
        """Another motor of the same size; the nameplate stays."""
        return varied_fields(self, VARIED, rng, spread)


VARIED = {
    "fixed_loss_kw": 0.5,
    "load_loss_kw": 0.5,
    "magnetising_ratio": 0.3,
    "supply_voltage_v": 0.1,
    "drive_efficiency_ratio": 0.03,
    "winding_rise_k": 0.5,
    "winding_time_constant_s": 1.0,
    "frame_rise_k": 0.5,
    "frame_time_constant_s": 1.0,
    "bearing_rise_k": 1.0,
    "bearing_time_constant_s": 1.0,
}


@dataclass(frozen=True, slots=True)
class Electrics:
    """What faults do to a motor, its supply and its cooling. All 0 on a healthy one.

    Attributes:
        drag_ratio: power the shaft takes beyond the pump's, of the pump's. extra_slip_ratio: of its own slip.
        extra_loss_ratio, extra_current_ratio: of its own losses and current.
        voltage_unbalance_ratio: largest deviation of a phase from the mean (NEMA MG 1, 12.45), in phase 1.
        winding_unbalance_ratio: the same of the currents, by the motor's own doing, in phase 2.
        beat_ratio: by how much the current swings at the pole-pass frequency.
        lost_cooling: 0..1, how much of the fan's air is gone.
    """

    drag_ratio: float = 0.0
    extra_slip_ratio: float = 0.0
    extra_loss_ratio: float = 0.0
    extra_current_ratio: float = 0.0
    voltage_unbalance_ratio: float = 0.0
    winding_unbalance_ratio: float = 0.0
    beat_ratio: float = 0.0
    lost_cooling: float = 0.0


SOUND = Electrics()
CURRENT_OVER_VOLTAGE = (
    7.0  # how much more unbalanced the currents are than the voltages: 6 to 10 times (NEMA MG 1, 14.36)
)
FRAME_RISE_WITHOUT_AIR = 0.9  # more, of its own
FRAME_TO_BEARING = 0.6  # of what the frame is hotter
SLOWER_WITHOUT_AIR = 0.5
EVEN = (1.0, 1.0, 1.0)


@dataclass(slots=True)
class MotorPoint:
    """What the motor and its drive do at one instant. Phases as shares of their mean."""

    speed_rpm: float
    torque_ratio: float  # of rated torque
    loss_ratio: float  # of rated losses
    shaft_power_kw: float
    supply_power_kw: float  # what the meter before the drive sees
    current_a: float  # drive output, per phase
    power_factor_ratio: float  # at the meter
    supply_current_a: float
    voltage_shares: tuple[float, float, float] = EVEN
    current_shares: tuple[float, float, float] = EVEN
    beat_ratio: float = 0.0


def speed_rpm(motor: MotorParameters, frequency_hz: float, torque_ratio: float) -> float:
    """Synchronous speed less slip; at constant flux the slip in rpm follows torque alone."""
    slip_rpm = (motor.synchronous_speed_rpm - motor.rated_speed_rpm) * torque_ratio
    return max(0.0, 120.0 * frequency_hz / motor.n_poles - slip_rpm)


def torque_ratio_of(motor: MotorParameters, shaft_power_kw: float, at_speed_rpm: float) -> float:
    """Torque over rated torque; 0 at standstill."""
    if at_speed_rpm < 1.0:
        return 0.0
    return shaft_power_kw / motor.rated_power_kw * motor.rated_speed_rpm / at_speed_rpm


def power_factor_ratio(motor: MotorParameters, torque_ratio: float) -> float:
    """The motor's own power factor: 0.83 at rated load, about 0.73 at 60 %, 0.5 at 25 %."""
    active, reactive = _current_parts(motor, torque_ratio)
    return active / math.hypot(active, reactive)


def _current_parts(motor: MotorParameters, torque_ratio: float) -> tuple[float, float]:
    """Active and reactive current over rated: the magnetising part grows with leakage flux, as load squared."""
    active = motor.rated_power_factor_ratio * torque_ratio
    at_rated = math.sqrt(1.0 - motor.rated_power_factor_ratio**2)
    return active, motor.magnetising_ratio + (at_rated - motor.magnetising_ratio) * torque_ratio**2


def _shares(electrics: Electrics) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Voltages and currents of the phases: one phase is off by the unbalance, the two others make up for it."""
    volts, own = electrics.voltage_unbalance_ratio, electrics.winding_unbalance_ratio
    amps = CURRENT_OVER_VOLTAGE * volts
    return (1.0 + volts, 1.0 - volts / 2.0, 1.0 - volts / 2.0), (
        1.0 + amps - own / 2.0,
        1.0 - amps / 2.0 + own,
        1.0 - amps / 2.0 - own / 2.0,
    )


def operate(
    motor: MotorParameters,
    frequency_hz: float,
    shaft_power_kw: float,
    at_speed_rpm: float,
    voltage_ratio: float = 1.0,
    electrics: Electrics = SOUND,
) -> MotorPoint:
    """The electrical point of a motor that gives `shaft_power_kw` at `at_speed_rpm`; all zero but standby when off."""
    torque = torque_ratio_of(motor, shaft_power_kw, at_speed_rpm)
    voltage_v = motor.supply_voltage_v * voltage_ratio
    if frequency_hz <= 0.0:
        standby_a = motor.drive_standby_kw * 1e3 / (3.0 * voltage_v * 0.45)
        volts, _ = _shares(electrics)
        return MotorPoint(at_speed_rpm, 0.0, 0.0, 0.0, motor.drive_standby_kw, 0.0, 0.45, standby_a, volts)
    speed_ratio = frequency_hz / motor.rated_frequency_hz
    loss_kw = motor.fixed_loss_kw * speed_ratio**1.5 + motor.load_loss_kw * torque**2
    loss_kw *= 1.0 + electrics.extra_loss_ratio
    supply_kw = (shaft_power_kw + loss_kw) / motor.drive_efficiency_ratio + motor.drive_standby_kw
    supply_factor = 0.95 - 0.20 * math.exp(
        -supply_kw / 1.5
    )  # a rectifier with choke: load hardly matters above a third
    current_a = (
        motor.rated_current_a * math.hypot(*_current_parts(motor, torque)) * (1.0 + electrics.extra_current_ratio)
    )
    supply_a = supply_kw * 1e3 / (3.0 * voltage_v * supply_factor)
    rated_loss_kw = motor.fixed_loss_kw + motor.load_loss_kw
    loss_ratio = loss_kw / rated_loss_kw
    return MotorPoint(
        *(at_speed_rpm, torque, loss_ratio, shaft_power_kw, supply_kw, current_a, supply_factor, supply_a),
        *_shares(electrics),
        electrics.beat_ratio,
    )


@dataclass(slots=True)
class Temperatures:
    """Winding, frame and drive-end bearing, in degrees Celsius."""

    winding_degc: float
    frame_degc: float
    bearing_degc: float


def settled(
    motor: MotorParameters,
    loss_ratio: float,
    friction_ratio: float,
    extra_bearing_k: float,
    ambient_degc: float,
    lost_cooling: float = 0.0,
) -> Temperatures:
    """Where the temperatures end when nothing changes any more."""
    frame = ambient_degc + motor.frame_rise_k * loss_ratio
    bearing = ambient_degc + motor.bearing_rise_k * (0.4 * loss_ratio + 0.6 * friction_ratio) + extra_bearing_k
    hotter = FRAME_RISE_WITHOUT_AIR * lost_cooling * motor.frame_rise_k * loss_ratio
    frame, bearing = frame + hotter, bearing + FRAME_TO_BEARING * hotter
    return Temperatures(frame + motor.winding_rise_k * loss_ratio, frame, bearing)


def warm(
    motor: MotorParameters,
    now: Temperatures,
    *,
    loss_ratio: float,
    friction_ratio: float,
    extra_bearing_k: float,
    ambient_degc: float,
    step_s: float,
    lost_cooling: float = 0.0,
) -> Temperatures:
    """The temperatures one step later, each on its way to its settled value with its own time constant.

    Args:
        loss_ratio: losses over rated. friction_ratio: speed over rated. extra_bearing_k: what a fault adds in the end.
        lost_cooling: 0..1, how much of the fan's air is gone: hotter and slower.
    """
    end = settled(motor, loss_ratio, friction_ratio, extra_bearing_k, ambient_degc, lost_cooling)
    slower = 1.0 if friction_ratio > 0.1 else motor.standstill_cooling_ratio
    slower *= 1.0 + SLOWER_WITHOUT_AIR * lost_cooling
    frame = toward(now.frame_degc, end.frame_degc, step_s / (motor.frame_time_constant_s * slower))
    winding_end = frame + motor.winding_rise_k * loss_ratio
    winding = toward(now.winding_degc, winding_end, step_s / (motor.winding_time_constant_s * slower))
    bearing = toward(now.bearing_degc, end.bearing_degc, step_s / (motor.bearing_time_constant_s * slower))
    return Temperatures(winding, frame, bearing)


def toward(now: float, end: float, steps: float) -> float:
    """First-order lag, exact for any step length."""
    return end + (now - end) * math.exp(-steps)
