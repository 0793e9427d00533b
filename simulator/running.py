"""A running motor and pump of any size, as any instrument would show it: values for device files without a model here.

The demo's own devices are simulated in detail (machine_set.py, sensors.py). Commissioning must also work for devices that
nobody simulates, so this draws one machine from plain physics and reads each point's value off it by the point's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from firmware_bridge.device import DeviceProfile, Point

SUPPLIES = ((50.0, 230.9), (50.0, 230.9), (50.0, 230.9), (60.0, 277.0), (50.0, 398.0))  # Hz, V line to neutral
POLES = (2, 4, 4, 4, 6)
MAX_DRAWS = 200
WATER_M3_M_KWH = 367.1  # m3/h times m of water that a kW lifts without loss


@dataclass(frozen=True, slots=True)
class Running:
    """One motor with its pump at work, without any instrument's error."""

    grid_hz: float
    phase_v: float  # line to neutral
    output_hz: float
    motor_v: float  # line to line, behind the drive
    speed_rpm: float
    torque_nm: float
    torque_pct: float
    shaft_kw: float
    supply_kw: float
    supply_a: float
    motor_a: float
    power_factor_ratio: float
    flow_m3_h: float
    head_m: float
    suction_bar: float
    ambient_degc: float
    liquid_degc: float
    velocity_mm_s: float
    acceleration_g: float
    crest_ratio: float
    vibration_hz: float
    running_h: float

    @property
    def supply_kva(self) -> float:
        """Apparent power before the drive."""
        return self.supply_kw / self.power_factor_ratio

    @property
    def head_bar(self) -> float:
        """Differential pressure of water."""
        return self.head_m * 0.0981


def running(rng: np.random.Generator) -> Running:
    """Some motor of 0.75 to 160 kW at 35 to 100 % load, half of them on a drive below full speed."""
    grid_hz, phase_v = SUPPLIES[rng.integers(len(SUPPLIES))]
    phase_v *= rng.normal(1.0, 0.015)
    rated_kw = _between(rng, 0.75, 160.0)
    load = rng.uniform(0.35, 1.0)
    speed_ratio = 1.0 if rng.random() < 0.5 else rng.uniform(0.6, 1.0)
    slip_hz = grid_hz * 0.05 * load * rated_kw**-0.25
    speed_rpm = 120.0 / POLES[rng.integers(len(POLES))] * (grid_hz * speed_ratio - slip_hz)
    shaft_kw = rated_kw * load * speed_ratio
    supply_kw = shaft_kw / min(0.96, 0.78 + 0.035 * math.log(rated_kw + 1.0))
    power_factor_ratio = 0.45 + 0.43 * load**0.7
    supply_a = supply_kw * 1e3 / (3.0 * phase_v * power_factor_ratio)
    head_m = _between(rng, 6.0, 60.0)
    velocity_mm_s = math.exp(rng.normal(math.log(1.4), 0.65))
    return Running(
        grid_hz=grid_hz + rng.normal(0.0, 0.015),
        phase_v=phase_v,
        output_hz=grid_hz * speed_ratio,
        motor_v=math.sqrt(3.0) * phase_v * speed_ratio,
        speed_rpm=speed_rpm,
        torque_nm=9549.3 * shaft_kw / speed_rpm,
        torque_pct=100.0 * load,
        shaft_kw=shaft_kw,
        supply_kw=supply_kw,
        supply_a=supply_a,
        motor_a=supply_a / speed_ratio,
        power_factor_ratio=power_factor_ratio,
        flow_m3_h=shaft_kw * rng.uniform(0.45, 0.8) * WATER_M3_M_KWH / head_m,
        head_m=head_m,
        suction_bar=rng.uniform(0.05, 2.0),
        ambient_degc=rng.normal(22.0, 7.0),
        liquid_degc=rng.uniform(8.0, 55.0),
        velocity_mm_s=velocity_mm_s,
        acceleration_g=velocity_mm_s * math.tau * math.exp(rng.normal(math.log(130.0), 0.6)) / 9806.65,
        crest_ratio=math.exp(rng.normal(math.log(4.2), 0.18)),
        vibration_hz=speed_rpm / 60.0 * (1, 1, 2, 6)[rng.integers(4)],
        running_h=_between(rng, 300.0, 50e3),
    )


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform: as many small machines as large ones."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


# ---------------------------------------------------------------------- what a point of some name shows
G_M_S2 = 9.80665
Show = Callable[[Running, np.random.Generator], float]
SHOWN: tuple[tuple[str, Show], ...] = (
    (r"(line|mains|supply|grid|input)_frequency_hz", lambda m, _: m.grid_hz),
    (r"(peak|dominant).*frequency.*_hz", lambda m, _: m.vibration_hz),
    (r"(shaft|motor)?_?(speed|frequency)_hz", lambda m, _: m.speed_rpm / 60.0),
    (r".*frequency.*_hz", lambda m, _: m.output_hz),
    (r".*_rpm", lambda m, _: m.speed_rpm),
    (r".*(dc_bus|dc_link).*_v", lambda m, _: 2.34 * m.phase_v),
    (r".*(l\d_l\d|_ll).*_v", lambda m, r: math.sqrt(3.0) * m.phase_v * r.normal(1.0, 0.004)),
    (r"(motor|output)_voltage.*_v", lambda m, _: m.motor_v),
    (r".*(l\d|_ln).*_v", lambda m, r: m.phase_v * r.normal(1.0, 0.004)),
    (r"(mains|line|supply|grid)_voltage_v|voltage_average_v", lambda m, _: math.sqrt(3.0) * m.phase_v),
    (r"(motor|output)_current.*_a", lambda m, _: m.motor_a),
    (r"earth_current_a", lambda m, r: m.supply_a * r.exponential(0.002)),
    (r"last_start_peak_current_a", lambda m, r: m.supply_a * r.uniform(4.0, 8.0)),
    (r"current(_l\d|_average)?_a", lambda m, r: m.supply_a * r.normal(1.0, 0.02)),
    (r"(motor_)?shaft_power_kw|motor_power_kw", lambda m, _: m.shaft_kw),
    (r".*power_l\d_kw", lambda m, r: m.supply_kw / 3.0 * r.normal(1.0, 0.02)),
    (r".*power.*_kw", lambda m, _: m.supply_kw),
    (r".*power.*_w", lambda m, _: 1e3 * m.supply_kw),
    (r"apparent.*_kva", lambda m, _: m.supply_kva),
    (r"reactive.*_kvar", lambda m, _: math.sqrt(m.supply_kva**2 - m.supply_kw**2)),
    (r".*(power_factor|cos_phi).*_ratio", lambda m, r: min(1.0, m.power_factor_ratio * r.normal(1.0, 0.01))),
    (r".*(export|received).*_kwh", lambda m, r: m.running_h * r.exponential(0.01) if r.random() < 0.5 else 0.0),
    (r".*_kwh", lambda m, _: m.supply_kw * m.running_h),
    (r".*_wh_m3", lambda m, _: 1e3 * m.supply_kw / m.flow_m3_h),
    (r".*torque.*_nm", lambda m, _: m.torque_nm),
    (r".*torque.*_pct|.*load.*_pct", lambda m, _: m.torque_pct),
    (r".*power.*_pct", lambda m, r: m.torque_pct * r.uniform(0.7, 1.0)),
    (r".*thermal.*_pct", lambda m, r: 0.9 * m.torque_pct * r.uniform(0.7, 1.1)),
    (r".*current.*unbalance.*_pct", lambda m, r: r.uniform(0.5, 6.0)),
    (r".*voltage.*unbalance.*_pct", lambda m, r: r.uniform(0.2, 2.0)),
    (r".*current.*thd.*_pct", lambda m, r: r.uniform(4.0, 45.0)),
    (r".*thd.*_pct", lambda m, r: r.uniform(1.2, 5.0)),
    (r".*velocity.*rms.*_mm_s", lambda m, r: m.velocity_mm_s * r.uniform(0.6, 1.2)),
    (r".*velocity_[xyz]_mm_s", lambda m, r: m.velocity_mm_s * r.uniform(0.8, 1.5)),
    (r".*displacement.*_um", lambda m, r: m.velocity_mm_s * 2.8e3 / (math.tau * m.vibration_hz) * r.uniform(0.7, 1.4)),
    (r".*velocity.*peak.*_mm_s", lambda m, r: m.velocity_mm_s * r.uniform(1.3, 2.6)),
    (r"hf_acceleration.*rms.*_g", lambda m, r: m.acceleration_g * r.uniform(0.3, 1.0)),
    (r".*acceleration.*rms.*_g", lambda m, r: m.acceleration_g * r.uniform(0.7, 1.2)),
    (r".*acceleration.*rms.*_m_s2", lambda m, r: G_M_S2 * m.acceleration_g * r.uniform(0.7, 1.2)),
    (r".*acceleration.*peak.*_g", lambda m, r: m.acceleration_g * m.crest_ratio * r.uniform(0.85, 1.15)),
    (r".*acceleration.*peak.*_m_s2", lambda m, r: G_M_S2 * m.acceleration_g * m.crest_ratio * r.uniform(0.85, 1.15)),
    (r".*crest.*_ratio", lambda m, r: m.crest_ratio * r.uniform(0.9, 1.1)),
    (r".*kurtosis.*_ratio", lambda m, r: 2.8 + 0.4 * r.exponential()),
    (r".*(ambient).*_degc", lambda m, _: m.ambient_degc),
    (r".*(liquid|water|medium|fluid).*_degc", lambda m, _: m.liquid_degc),
    (r".*(motor|winding).*_degc", lambda m, r: m.ambient_degc + 0.7 * m.torque_pct * r.uniform(0.6, 1.1)),
    (r".*_degc", lambda m, r: m.ambient_degc + r.uniform(8.0, 35.0)),
    (r"suction.*_bar", lambda m, _: m.suction_bar),
    (r"(differential|pump_head).*_bar", lambda m, _: m.head_bar),
    (r".*pressure.*_bar", lambda m, _: m.suction_bar + m.head_bar),
    (r".*head.*_m", lambda m, _: m.head_m),
    (r".*flow.*_m3_h", lambda m, _: m.flow_m3_h),
    (r".*flow.*_l_min", lambda m, _: m.flow_m3_h / 0.06),
    (r".*(running|operating|powered).*_h", lambda m, _: m.running_h),
    (r"relative_performance_pct", lambda m, _: 100.0 * m.output_hz / m.grid_hz),
    (r"last_start_time_s", lambda m, r: r.uniform(0.5, 12.0)),
    (r".*run_time_s", lambda m, _: 3600.0 * m.running_h),
)  # fmt: skip
_SHOWN = tuple((re.compile(pattern), show) for pattern, show in SHOWN)


def shown_values(profile: DeviceProfile, rng: np.random.Generator) -> dict[str, float]:
    """What each point of the device shows on some machine that it fits: a 5 A drive is not put on a 90 kW motor."""
    for _ in range(MAX_DRAWS):
        machine = running(rng)
        values = {point.name: _shown(profile, point, machine, rng) for point in profile.points}
        if all(point.plausible[0] <= values[point.name] <= point.plausible[1] for point in profile.points):
            return values
    raise ValueError(f"no machine fits {profile.model}; its plausible ranges exclude one another")


def _shown(profile: DeviceProfile, point: Point, machine: Running, rng: np.random.Generator) -> float:
    """By physics; a quantity without any here varies what the device file's examples say of it."""
    for pattern, show in _SHOWN:
        if pattern.fullmatch(point.name):
            return show(machine, rng)
    told = [example.values[point.name] for example in profile.examples if example.values.get(point.name)]
    middle = told[0] if told else 0.5 * sum(point.typical or point.plausible)
    if point.type == "bit" or point.bits is not None:
        return middle
    return float(np.clip(middle * math.exp(rng.normal(0.0, 0.3)), *point.plausible))
