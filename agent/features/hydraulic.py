"""Hydraulic quantities of a pump: head, efficiency, specific energy, suction reserve, and what the affinity laws leave.

The laws refer a point to rated speed (flow with n, head with its square, power with its cube), so a drive's speed drops
out, and against the pump's own curve only wear, air, a clogged impeller or a lying sensor is left.
"""

from __future__ import annotations

import math
from itertools import pairwise

from agent.features import water
from agent.features.feature import quantity
from agent.features.nameplate import NAN, Curve, DataPlate, Nameplate
from agent.features.readings import (
    SHAFT_POWER,
    Readings,
    first_known,
    quotient,
    shaft_power_kw,
    speed_ratio_of,
)
from firmware_bridge.units import STANDARD_GRAVITY_M_S2

PA_PER_BAR = 1e5
S_PER_H = 3600.0
L_MIN_PER_M3_H = 1000.0 / 60.0
COLD_WATER_DEGC = (
    20.0  # "clean cold water" of ISO 9906, where no temperature is known: 1 % of density from 0 to 45 degrees
)
DRY_POWER_LACK_RATIO = 0.5  # a dry pump takes half of its power or less: 35 to 60 % of it

SPEED = "shaft_speed_rpm"
PRESSURES = ("suction_pressure_bar", "discharge_pressure_bar", "differential_pressure_bar")
FLOW = ("flow_m3_h", "flow_l_min")
LIQUID = ("liquid_temperature_degc", "medium_temperature_degc", "suction_temperature_degc")
WATER_SIDE = (*PRESSURES, *FLOW, *LIQUID)

AFFINITY = (
    "affinity laws: flow with n, head with n squared, power with n cubed (ISO 9906:2012, translation to rated speed)"
)
HEAD_FAULTS = ("impeller_wear", "clogged_impeller", "air_entrainment", "dry_run", "cavitation")


# ---------------------------------------------------------------------------------------------- formulas
def velocity_head_m(flow_m3_h: float, bore_mm: float) -> float:
    """v^2 / 2g in a round pipe."""
    area_m2 = math.pi / 4.0 * (bore_mm / 1e3) ** 2
    velocity_m_s = quotient(flow_m3_h / S_PER_H, area_m2)
    return velocity_m_s * velocity_m_s / (2.0 * STANDARD_GRAVITY_M_S2)


def pressure_head_m(pressure_bar: float, density_kg_m3: float) -> float:
    """The column of liquid that weighs so much: p / (rho g)."""
    return PA_PER_BAR * pressure_bar / (density_kg_m3 * STANDARD_GRAVITY_M_S2)


def hydraulic_power_kw(flow_m3_h: float, head_m: float, density_kg_m3: float) -> float:
    """rho g Q H: what the liquid gets."""
    return density_kg_m3 * STANDARD_GRAVITY_M_S2 * flow_m3_h / S_PER_H * head_m / 1e3


def on_curve(curve: Curve, flow_m3_h: float) -> float:
    """Straight between a curve's points; NaN beyond them, where nobody has drawn it."""
    for (low_m3_h, low), (high_m3_h, high) in pairwise(curve):
        if low_m3_h <= flow_m3_h <= high_m3_h:
            return low + (high - low) * (flow_m3_h - low_m3_h) / (high_m3_h - low_m3_h)
    return NAN


def best_flow_m3_h(data: DataPlate) -> float:
    """Where the pump's efficiency is highest."""
    return max(data.efficiency_curve, key=lambda point: point[1], default=(NAN, NAN))[0]


# ---------------------------------------------------------------------------------------------- a machine's values
def density_of(now: Readings, data: DataPlate) -> float:
    """Of the site's liquid, else of water at its temperature, else of clean cold water."""
    known_degc = first_known(_temperature_degc(now, data), COLD_WATER_DEGC)
    return first_known(data.liquid_density_kg_m3, water.density_kg_m3(known_degc))


def _temperature_degc(now: Readings, data: DataPlate) -> float:
    return first_known(*(now[name] for name in LIQUID), data.liquid_temperature_degc)


def flow_of(now: Readings) -> float:
    """In m3/h."""
    return first_known(now["flow_m3_h"], now["flow_l_min"] / L_MIN_PER_M3_H)


def static_head_m(now: Readings, data: DataPlate) -> float:
    """Head by pressure and height alone, without the velocity head."""
    suction_bar, discharge_bar, differential_bar = (now[name] for name in PRESSURES)
    rise_bar = first_known(differential_bar, discharge_bar - suction_bar)
    height_m = data.discharge_gauge_height_m - data.suction_gauge_height_m
    return pressure_head_m(rise_bar, density_of(now, data)) + height_m


def total_head_m(now: Readings, data: DataPlate) -> float:
    """dp / (rho g) + (vd^2 - vs^2) / 2g + zd - zs; pipes whose bores are not stated count as equal."""
    if math.isnan(data.suction_bore_mm):
        return static_head_m(now, data)
    flow_m3_h = flow_of(now)
    gained_m = velocity_head_m(flow_m3_h, data.discharge_bore_mm) - velocity_head_m(flow_m3_h, data.suction_bore_mm)
    return static_head_m(now, data) + gained_m


def npsha_m(now: Readings, data: DataPlate) -> float:
    """(ps + atmosphere - pv) / (rho g) + vs^2 / 2g + zs; without a stated bore the velocity head is left out, on the safe side."""
    vapour_bar = first_known(data.vapour_pressure_bar, water.vapour_pressure_bar(_temperature_degc(now, data)))
    pressure_bar = now["suction_pressure_bar"] + data.atmospheric_pressure_bar - vapour_bar
    velocity_m = 0.0 if math.isnan(data.suction_bore_mm) else velocity_head_m(flow_of(now), data.suction_bore_mm)
    return pressure_head_m(pressure_bar, density_of(now, data)) + velocity_m + data.suction_gauge_height_m


def efficiency_of(now: Readings, data: DataPlate) -> float:
    """rho g Q H over the shaft's power."""
    power_kw = shaft_power_kw(now["motor_shaft_power_kw"], now["active_power_kw"], data)
    return quotient(hydraulic_power_kw(flow_of(now), total_head_m(now, data), density_of(now, data)), power_kw)


def rated_flow_of(now: Readings, plate: Nameplate) -> float:
    """Flow in m3/h referred to rated speed."""
    return quotient(flow_of(now), speed_ratio_of(now[SPEED], plate))


# ---------------------------------------------------------------------------------------------- features
@quantity(
    version=1,
    words="pump head",
    source="ISO 9906:2012, total head from the pressures, the velocity heads and the heights of the gauges",
    moved_by=(*HEAD_FAULTS, "dead_head", "recirculation"),
    may_use=WATER_SIDE,
)
def head_m(now: Readings, plate: Nameplate) -> float:
    """What the pump adds to the liquid, as metres of it."""
    return total_head_m(now, plate.data)


@quantity(
    version=1,
    words="pump efficiency",
    source="ISO 9906:2012, pump efficiency rho g Q H / P at the shaft",
    moved_by=(
        "impeller_wear",
        "clogged_impeller",
        "cavitation",
        "recirculation",
        "air_entrainment",
        "dry_run",
        "dead_head",
        "overload",
    ),
    may_use=(*WATER_SIDE, *SHAFT_POWER),
)
def efficiency_ratio(now: Readings, plate: Nameplate) -> float:
    """By the drive's shaft power, else by the meter's and the motor's rated efficiency."""
    return efficiency_of(now, plate.data)


@quantity(
    version=1,
    words="energy per cubic metre",
    source="ISO/ASME 14414:2019, specific energy: electric power over flow; also H / (367 * total efficiency) for water",
    moved_by=("impeller_wear", "clogged_impeller", "recirculation", "dead_head"),
    needs=("active_power_kw",),
    may_use=FLOW,
    transform="log",
)
def specific_energy_kwh_m3(now: Readings, plate: Nameplate) -> float:
    """What a cubic metre costs, as the bill counts it."""
    return quotient(now["active_power_kw"], flow_of(now))


@quantity(
    version=1,
    words="suction reserve (NPSH available)",
    source="ISO 9906:2012, NPSH: absolute suction head over the vapour pressure's, at the impeller's height",
    moved_by=("cavitation", "clogged_strainer", "dry_run"),
    needs=("suction_pressure_bar",),
    may_use=(*FLOW, *LIQUID),
)
def npsh_available_m(now: Readings, plate: Nameplate) -> float:
    """How far the liquid is from boiling where it enters."""
    return npsha_m(now, plate.data)


@quantity(
    version=1,
    words="suction reserve over the pump's need",
    source="ANSI/HI 9.6.1: NPSH margin ratio NPSHa / NPSH3, at least 1.1 to 1.5; NPSH3 goes with speed squared",
    moved_by=(
        "cavitation",
        "clogged_strainer",
        "dry_run",
        "dead_head",
        "recirculation",
        "clogged_impeller",
        "air_entrainment",
    ),
    needs=("suction_pressure_bar", SPEED),
    may_use=(*FLOW, *LIQUID),
)
def npsh_margin_ratio(now: Readings, plate: Nameplate) -> float:
    """1 is where the head has already dropped by 3 %; noise and erosion begin well above it."""
    speed_ratio = speed_ratio_of(now[SPEED], plate)
    needed_m = on_curve(plate.data.npsh3_curve, rated_flow_of(now, plate)) * speed_ratio * speed_ratio
    return quotient(npsha_m(now, plate.data), needed_m)


@quantity(
    version=1,
    words="flow over best flow",
    source="ANSI/HI 9.6.3: preferred region 70 to 120 % of best-efficiency flow at the same speed",
    moved_by=(
        "recirculation",
        "dead_head",
        "dry_run",
        "impeller_wear",
        "air_entrainment",
        "clogged_impeller",
        "clogged_strainer",
    ),
    needs=(SPEED,),
    may_use=FLOW,
)
def flow_over_best_ratio(now: Readings, plate: Nameplate) -> float:
    """1 at the best-efficiency point; far from it the shaft bends and the flow recirculates."""
    return quotient(rated_flow_of(now, plate), best_flow_m3_h(plate.data))


@quantity(
    version=1,
    words="head referred to rated speed",
    source=AFFINITY,
    moved_by=(*HEAD_FAULTS, "dead_head", "recirculation", "clogged_strainer"),
    needs=(SPEED,),
    may_use=WATER_SIDE,
)
def head_at_rated_speed_m(now: Readings, plate: Nameplate) -> float:
    """H / n^2. Needs no curve."""
    speed_ratio = speed_ratio_of(now[SPEED], plate)
    return quotient(total_head_m(now, plate.data), speed_ratio * speed_ratio)


@quantity(
    version=1,
    words="flow referred to rated speed",
    source=AFFINITY,
    moved_by=(
        "impeller_wear",
        "clogged_impeller",
        "recirculation",
        "dead_head",
        "dry_run",
        "air_entrainment",
        "clogged_strainer",
    ),
    needs=(SPEED,),
    may_use=FLOW,
)
def flow_at_rated_speed_m3_h(now: Readings, plate: Nameplate) -> float:
    """Q / n. Needs no curve."""
    return rated_flow_of(now, plate)


@quantity(
    version=1,
    words="power referred to rated speed",
    source=AFFINITY,
    moved_by=(
        "dry_run",
        "dead_head",
        "clogged_impeller",
        "air_entrainment",
        "impeller_wear",
        "overload",
        "recirculation",
    ),
    needs=(SPEED,),
    may_use=SHAFT_POWER,
)
def power_at_rated_speed_kw(now: Readings, plate: Nameplate) -> float:
    """P / n^3: of the shaft where the drive tells it, else of the supply. Needs no curve."""
    power_kw = first_known(now["motor_shaft_power_kw"], now["active_power_kw"])
    speed_ratio = speed_ratio_of(now[SPEED], plate)
    return quotient(power_kw, speed_ratio * speed_ratio * speed_ratio)


@quantity(
    version=1,
    words="head against the pump's curve",
    source="ISO 9906:2012 and the affinity laws: H / n^2 less the curve's head at Q / n",
    moved_by=HEAD_FAULTS,
    needs=(SPEED,),
    may_use=WATER_SIDE,
)
def head_residual_m(now: Readings, plate: Nameplate) -> float:
    """0 on a pump as new, at any speed and valve; below 0 where head is lost."""
    speed_ratio = speed_ratio_of(now[SPEED], plate)
    expected_m = on_curve(plate.data.head_curve, rated_flow_of(now, plate))
    return quotient(total_head_m(now, plate.data), speed_ratio * speed_ratio) - expected_m


@quantity(
    version=1,
    words="efficiency against the pump's curve",
    source="ISO 9906:2012 and the affinity laws: efficiency less the curve's at Q / n",
    moved_by=("impeller_wear", "clogged_impeller", "cavitation", "air_entrainment", "dry_run", "overload"),
    needs=(SPEED,),
    may_use=(*WATER_SIDE, *SHAFT_POWER),
)
def efficiency_residual_ratio(now: Readings, plate: Nameplate) -> float:
    """0 on a pump as new, at any speed and valve. Small pumps lose a point or two at low speed by nature."""
    return efficiency_of(now, plate.data) - on_curve(plate.data.efficiency_curve, rated_flow_of(now, plate))


@quantity(
    version=1,
    words="signs of running dry",
    source="no head and 35 to 60 % of the power at this speed (Gulich, Centrifugal Pumps), against the best-efficiency point",
    moved_by=("dry_run", "air_entrainment"),
    needs=(SPEED,),
    may_use=(*PRESSURES, *LIQUID, *SHAFT_POWER),
)
def dry_run_ratio(now: Readings, plate: Nameplate) -> float:
    """0 with water, 1 dry: the smaller of lacking head and lacking power, as a shut valve takes the power but not the head.

    Asks no flow meter, which says nothing of an empty pipe.
    """
    data = plate.data
    speed_ratio = speed_ratio_of(now[SPEED], plate)
    best_m3_h = best_flow_m3_h(data)
    duty_head_m, duty_efficiency = on_curve(data.head_curve, best_m3_h), on_curve(data.efficiency_curve, best_m3_h)
    duty_kw = quotient(hydraulic_power_kw(best_m3_h, duty_head_m, density_of(now, data)), duty_efficiency)
    power_kw = shaft_power_kw(now["motor_shaft_power_kw"], now["active_power_kw"], data)
    square = speed_ratio * speed_ratio
    head_lack = 1.0 - quotient(static_head_m(now, data), duty_head_m * square)
    power_lack = (1.0 - quotient(power_kw, duty_kw * square * speed_ratio)) / DRY_POWER_LACK_RATIO
    if math.isnan(head_lack + power_lack):
        return NAN
    return min(max(min(head_lack, power_lack), 0.0), 1.0)
