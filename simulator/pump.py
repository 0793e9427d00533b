"""An end-suction pump on a system curve: flow, head, power, suction reserve, and what its faults take away.

The example has a 260 mm impeller with 6 vanes: 80 m3/h at 20 m, 76 % efficiency, 5.74 kW at the shaft, NPSH3 3.0 m.
Source: affinity laws and the formulas of ISO 9906 / HI 9.6.1 (NPSH3 is the 3 % head drop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from simulator.variation import varied_fields

WATER_N_M3 = 9790.0  # weight of a cubic metre at 20 degrees
BAR_PA = 1e5
ATMOSPHERE_BAR = 1.013
WATER_KJ_M3_K = 4180.0
CASING_LOSS_KW_K = 0.06  # what the casing gives off to the room
WORST_VOID_RATIO = 0.06  # beyond it the pump loses its prime
LOST_BY_GAS = 6.0  # flow, head and power lose this many times the share of gas
DRAG_OF_FIBRES = 0.9  # they rub in the casing
SURGE_BY_GAS = 0.2  # of head and power, at the worst share


@dataclass(frozen=True, slots=True)
class PumpParameters:
    """One pump in one circuit. Heads in metres of water at `rated_speed_rpm`; flow in m3/h; pressures gauge."""

    rated_speed_rpm: float = 1460.0
    shutoff_head_m: float = 24.5
    head_slope: float = 7.03e-4  # metres per (m3/h) squared
    best_flow_m3_h: float = 80.0
    best_efficiency_ratio: float = 0.76
    static_head_m: float = 6.0
    system_slope: float = 2.19e-3  # metres per (m3/h) squared
    npsh3_at_zero_m: float = 1.8
    npsh3_slope: float = 1.875e-4
    incipient_ratio: float = 3.0  # NPSHa over NPSH3 where cavitation noise begins
    suction_pressure_bar: float = 0.25
    vapour_pressure_bar: float = 0.0234  # water at 20 degrees
    velocity_head_m: float = 0.3
    n_vanes: int = 6

    def varied(self, rng: np.random.Generator, spread: float = 0.3) -> PumpParameters:
        """Another pump in another circuit, whose valve is set for 85 to 105 % of best flow."""
        made = varied_fields(self, VARIED, rng, spread)
        duty_m3_h = made.best_flow_m3_h * (1.0 - spread * rng.uniform(-0.17, 0.5))
        head_m = made.shutoff_head_m - made.head_slope * duty_m3_h**2
        return replace(made, system_slope=max(2e-4, (head_m - made.static_head_m) / duty_m3_h**2))


VARIED = {
    "shutoff_head_m": 0.2,
    "head_slope": 0.3,
    "best_flow_m3_h": 0.2,
    "best_efficiency_ratio": 0.15,
    "static_head_m": 0.8,
    "npsh3_at_zero_m": 0.3,
    "incipient_ratio": 0.5,
    "suction_pressure_bar": 0.8,
}


@dataclass(frozen=True, slots=True)
class Hydraulics:
    """What faults and the process do to a pump. All 0 and `valve_ratio` 1 on a healthy one in its usual circuit.

    Attributes:
        valve_ratio: system resistance over its usual. level_bar: how much higher than usual the suction side stands.
        suction_loss: 0..1, how much of the suction reserve is gone; 1 leaves NPSHa = NPSH3.
        dry: 0..1, how much of the liquid is gone. wear: 0..1. clogging: 0..1, of the impeller by fibres.
        strainer_loss_bar: what a dirty suction strainer takes at best flow.
        void_ratio: gas in the liquid by volume. shut: the discharge is being shut, so the liquid may stand and warm up.
    """

    valve_ratio: float = 1.0
    suction_loss: float = 0.0
    dry: float = 0.0
    wear: float = 0.0
    level_bar: float = 0.0
    clogging: float = 0.0
    strainer_loss_bar: float = 0.0
    void_ratio: float = 0.0
    shut: bool = False


HEALTHY = Hydraulics()


@dataclass(slots=True)
class PumpPoint:
    """What the pump does at one instant."""

    flow_m3_h: float
    head_m: float
    shaft_power_kw: float
    suction_pressure_bar: float
    discharge_pressure_bar: float
    npsh_margin_ratio: float  # NPSHa over NPSH3
    cavitation_db: float  # gain of the noise above 3 kHz
    surge_ratio: float = 0.0  # by how much head and power swing at 0.1 to 2 Hz
    liquid_rise_k: float = 0.0  # where the liquid in the casing ends above what flows in


def operate(pump: PumpParameters, at_speed_rpm: float, hydraulics: Hydraulics = HEALTHY) -> PumpPoint:
    """Where pump curve and system curve meet, and what is needed to drive that.

    Cavitation lowers the head, which lowers the flow; one correction is enough, as the loss is small until the cliff.
    """
    speed_ratio = at_speed_rpm / pump.rated_speed_rpm
    shutoff_m = pump.shutoff_head_m * (1.0 - 0.12 * hydraulics.wear) * speed_ratio**2
    shutoff_m *= 1.0 - 0.2 * hydraulics.clogging
    flow = _flow_m3_h(pump, shutoff_m, hydraulics)
    suction_bar = _suction_bar(pump, flow, speed_ratio, hydraulics)
    npsh3_m = _npsh3_m(pump, flow, speed_ratio)
    margin = _npsha_m(pump, suction_bar) / npsh3_m
    lost = _cavitation_head_loss(margin)
    if lost > 1e-4:
        shutoff_m *= 1.0 - lost
        flow = _flow_m3_h(pump, shutoff_m, hydraulics)
    head_m = max(0.0, shutoff_m - _head_slope(pump, hydraulics) * flow**2) if speed_ratio > 0.0 else 0.0
    wet = (1.0 - hydraulics.dry) * (1.0 - LOST_BY_GAS * hydraulics.void_ratio)
    power_kw = _shaft_power_kw(pump, flow, head_m, speed_ratio) * (1.0 - 0.6 * hydraulics.dry)
    power_kw *= (1.0 - LOST_BY_GAS * hydraulics.void_ratio) * (1.0 + DRAG_OF_FIBRES * hydraulics.clogging)
    flow, head_m = flow * (1.0 - 0.08 * hydraulics.wear) * wet, head_m * wet
    discharge_bar = suction_bar + head_m * WATER_N_M3 / BAR_PA
    gain_db = _cavitation_db(pump, margin) * wet if speed_ratio > 0.5 else 0.0
    surge = SURGE_BY_GAS * hydraulics.void_ratio / WORST_VOID_RATIO if speed_ratio > 0.5 else 0.0
    rise_k = power_kw / (WATER_KJ_M3_K * flow / 3600.0 + CASING_LOSS_KW_K) if hydraulics.shut else 0.0
    return PumpPoint(flow, head_m, power_kw, suction_bar, discharge_bar, margin, gain_db, surge, rise_k)


def _flow_m3_h(pump: PumpParameters, shutoff_m: float, hydraulics: Hydraulics) -> float:
    spare_m = shutoff_m - pump.static_head_m
    if spare_m <= 0.0:
        return 0.0  # the check valve stays shut
    resistance = _head_slope(pump, hydraulics) + pump.system_slope * hydraulics.valve_ratio
    resistance += hydraulics.strainer_loss_bar * BAR_PA / WATER_N_M3 / pump.best_flow_m3_h**2
    return min(math.sqrt(spare_m / resistance), 1.6 * pump.best_flow_m3_h)


def _head_slope(pump: PumpParameters, hydraulics: Hydraulics) -> float:
    """Fibres narrow the passages: their loss goes with the flow squared."""
    return pump.head_slope * (1.0 + hydraulics.clogging)


def _shaft_power_kw(pump: PumpParameters, flow_m3_h: float, head_m: float, speed_ratio: float) -> float:
    """rho g Q H / eta. At no flow the quotient's limit is taken: about 61 % of duty power, as a radial pump churns."""
    if speed_ratio < 0.02:
        return 0.0
    flow = max(flow_m3_h, 0.02 * pump.best_flow_m3_h * speed_ratio)
    relative = flow / (pump.best_flow_m3_h * speed_ratio)
    efficiency = max(0.02, pump.best_efficiency_ratio * (1.0 - (relative - 1.0) ** 2))
    return WATER_N_M3 * flow / 3600.0 * head_m / efficiency / 1e3


def _npsh3_m(pump: PumpParameters, flow_m3_h: float, speed_ratio: float) -> float:
    return max(0.3, (pump.npsh3_at_zero_m * speed_ratio**2 + pump.npsh3_slope * flow_m3_h**2))


def _npsha_m(pump: PumpParameters, suction_bar: float) -> float:
    return max(
        0.05, (suction_bar + ATMOSPHERE_BAR - pump.vapour_pressure_bar) * BAR_PA / WATER_N_M3 + pump.velocity_head_m
    )


def _suction_bar(pump: PumpParameters, flow_m3_h: float, speed_ratio: float, hydraulics: Hydraulics) -> float:
    """Gauge pressure at the inlet. The circuit loses its pressure as a whole, so losing it does not change the flow."""
    friction_bar = 0.06 * (flow_m3_h / pump.best_flow_m3_h) ** 2
    friction_bar += hydraulics.strainer_loss_bar * (flow_m3_h / pump.best_flow_m3_h) ** 2
    healthy_bar = pump.suction_pressure_bar + hydraulics.level_bar + 0.06 - friction_bar
    reserve_m = _npsha_m(pump, healthy_bar) - _npsh3_m(pump, flow_m3_h, speed_ratio)
    starved_bar = healthy_bar - hydraulics.suction_loss * max(0.0, reserve_m) * WATER_N_M3 / BAR_PA
    return starved_bar * (1.0 - hydraulics.dry) - 0.02 * hydraulics.dry


def _cavitation_head_loss(margin_ratio: float) -> float:
    """Share of the head: 3 % at a margin of 1 by definition of NPSH3, nothing from 1.4 up, a cliff below 1."""
    if margin_ratio >= 1.0:
        return 0.03 * math.exp(-(margin_ratio - 1.0) / 0.08)
    return min(0.9, 0.03 + 3.0 * (1.0 - margin_ratio))


def _cavitation_db(pump: PumpParameters, margin_ratio: float) -> float:
    """Gain of the noise above 3 kHz: rises as the margin falls, loudest near 1.2, damped by its own vapour below 1."""
    gain_db = 20.0 * max(0.0, 1.0 - margin_ratio / pump.incipient_ratio)
    return gain_db if margin_ratio >= 1.0 else gain_db * max(0.3, 1.0 - 2.0 * (1.0 - margin_ratio))
